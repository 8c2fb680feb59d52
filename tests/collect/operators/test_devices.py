"""Leader arm, gamepad, take-over and terminal, without any device."""

from __future__ import annotations

import os
import pty
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

import numpy as np
import pytest

from blm.collect.controls import Control, KeyMap, Phase
from blm.collect.live_session import SessionStatus
from blm.collect.operators.gamepad import DEAD_ZONE, MOVE_SPEED_M_S, GamepadAgent, PadState
from blm.collect.operators.leader import MATCHED_WITHIN, LeaderAgent, leader_links, open_leader
from blm.collect.operators.take_over import TakeOverAgent
from blm.collect.operators.terminal import TerminalConsole, TerminalKeys, confirmed, key_names
from blm.collect.operators.tool_driver import ToolDriver
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import HardwareError, UnknownNameError, UsageError
from blm.schemas.rollout import Command, EpisodeStart, Observation
from tests.collect.sim.scenes import environment
from tests.collect.workcell import counting_environment

SO100 = load_embodiment("so100")


class Hand:
    """A leader arm whose values are given one after the other; the last one stays."""

    def __init__(self, *poses: np.ndarray) -> None:
        self.poses = list(poses)

    def get_action(self) -> dict[str, Any]:
        pose = self.poses.pop(0) if len(self.poses) > 1 else self.poses[0]
        return dict(zip(SO100.axis_names, pose.tolist(), strict=True))

    def disconnect(self) -> None: ...


def begun() -> tuple[EpisodeStart, Observation]:
    cell = counting_environment()
    observation = cell.reset(0)
    return cell.describe(), observation


def test_a_leader_is_coupled_once_it_stands_as_the_robot_does():
    start, observation = begun()
    state = observation.state.astype(float)
    span = SO100.column("upper") - SO100.column("lower")
    near = state + 0.5 * MATCHED_WITHIN * span
    notes: list[str] = []
    hand = Hand(state, state + 0.3 * span, state + 0.3 * span, near)
    agent = LeaderAgent(hand, SO100, waiting=lambda note: notes.append(note) is None, sleep=lambda s: None)
    agent.reset(start, observation)
    assert len(notes) == 2
    assert notes[0].startswith("Move the leader to where the robot is: ")
    first = agent.act(observation).values
    assert np.abs(first - state).max() < 0.15 * np.abs(near - state).max(), "nothing jumps"
    last = [agent.act(observation).values for _ in range(12)][-1]
    assert last == pytest.approx(near)


def test_where_matching_is_given_up_the_robot_stays_where_it_is():
    start, observation = begun()
    agent = LeaderAgent(Hand(observation.state + 90.0), SO100, waiting=lambda note: False)
    agent.reset(start, observation)
    for _ in range(30):
        assert agent.act(observation).values == pytest.approx(observation.state)


def test_what_to_do_is_said_once_a_second():
    start, observation = begun()
    now, notes = [0.0], []
    poses = [observation.state + offset for offset in np.linspace(90.0, 0.0, 61)]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    agent = LeaderAgent(
        Hand(*poses),
        SO100,
        waiting=lambda note: notes.append(note) is None,
        clock=lambda: now[0],
        sleep=sleep,
    )
    agent.reset(start, observation)
    assert len(notes) > 40, "sixty polls of a twentieth of a second"
    assert 2 <= len(set(notes)) <= 3
    assert agent.metrics()["matching_s"] == pytest.approx(0.05 * len(notes))


def test_a_leader_with_names_and_units_of_its_own_is_translated():
    widow = load_embodiment("widowxai")
    shown = {f"joint_{i}.pos": 0.1 * i for i in range(6)} | {"left_carriage_joint.pos": 0.022}

    class Trossen(Hand):
        def get_action(self) -> dict[str, Any]:
            return shown

    agent = LeaderAgent(Trossen(), widow, links=leader_links("widowxai"))
    assert agent.values() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_a_leader_of_another_robot_is_refused():
    class Short(Hand):
        def get_action(self) -> dict[str, Any]:
            return {"shoulder_pan.pos": 0.0}

    with pytest.raises(HardwareError, match=r"has no shoulder_lift.pos.*made for 'so100'"):
        LeaderAgent(Short(), SO100)


def test_a_leader_needs_a_port_and_a_kind():
    with pytest.raises(UsageError, match=r"needs --leader-port.*--list"):
        open_leader("so100", None)
    with pytest.raises(
        UsageError, match=r"'panda'; there is one for: so100, widowxai.*--operator lerobot:TYPE"
    ):
        open_leader("panda", "/dev/null")
    with pytest.raises(HardwareError, match=r"lerobot_teleoperator_trossen"):
        open_leader("widowxai", "192.168.1.2")
    with pytest.raises(UnknownNameError, match=r"teleoperator 'gelo' not found; there are: .*so100_leader"):
        open_leader("xarm7", "/dev/null", kind="gelo")


class FakePad:
    def __init__(self) -> None:
        self.state = PadState()

    def read(self) -> PadState:
        return self.state


@pytest.fixture
def gamepad() -> tuple[FakePad, GamepadAgent, list[Control], ToolDriver, Observation]:
    simulation = environment("so100", "push-cube")
    observation = simulation.reset(1)
    driver = ToolDriver(simulation.model, simulation.embodiment, simulation.base_pose)
    pad, pressed = FakePad(), []
    agent = GamepadAgent(pad, driver, pressed.append)
    agent.reset(simulation.describe(), observation)
    return pad, agent, pressed, driver, observation


def test_sticks_move_the_gripper_at_their_speed(gamepad: Any):
    pad, agent, _, driver, observation = gamepad
    before = driver.wish
    pad.state = PadState(left_x=1.0, right_y=1.0, right_trigger=1.0)
    for _ in range(10):
        agent.act(observation)
    moved = driver.wish.position - before.position
    way = MOVE_SPEED_M_S * 10 * driver.period_s
    assert moved == pytest.approx([0.0, -way, -way], abs=0.25 * way)
    assert driver.wish.opening < before.opening - 0.5
    pad.state = PadState(left_x=0.9 * DEAD_ZONE)
    still = driver.wish.position
    agent.act(observation)
    assert driver.wish.position == pytest.approx(still, abs=1e-9)


def test_buttons_are_pressed_once(gamepad: Any):
    pad, agent, pressed, _, observation = gamepad
    pad.state = PadState(buttons=frozenset({"a", "left_bumper"}))
    agent.act(observation)
    agent.poll()
    pad.state = PadState(buttons=frozenset({"b"}))
    agent.poll()
    assert pressed == [Control.ADVANCE, Control.EMERGENCY_STOP]


class Constant:
    def __init__(self, operator: str, value: float) -> None:
        self.operator, self.value, self.resets = operator, value, 0

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self.resets += 1

    def act(self, observation: Observation) -> Command:
        return Command(np.full(6, self.value))

    def metrics(self) -> dict[str, int]:
        return {"resets": self.resets}


def test_a_person_takes_over_and_gives_back():
    start, observation = begun()
    policy, person = Constant("policy:run", 1.0), Constant("leader", 2.0)
    drives = iter([False, True, True, False])
    agent = TakeOverAgent(policy, person, lambda: next(drives))
    agent.reset(start, observation)
    commands = [agent.act(observation) for _ in range(4)]
    assert [command.values[0] for command in commands] == [1.0, 2.0, 2.0, 1.0]
    assert [command.intervention for command in commands] == [False, True, True, False]
    assert [command.subtask for command in commands] == ["policy", "take-over", "take-over", "policy"]
    assert (policy.resets, person.resets) == (2, 1)
    assert agent.operator == "policy:run"
    assert agent.metrics() == {"resets": 2, "interventions": 1, "intervention_ticks": 2}


@pytest.mark.parametrize(
    ("received", "names"),
    [
        (b"\x1b[C", ["right"]),
        (b"\x1bOD", ["left"]),
        (b"\x1b", ["escape"]),
        (b"N \x7f", ["n", "space", "backspace"]),
        (b"\x1b[15~q", ["f5", "q"]),
        (b"\x1b[25~\x1b[6~\x1b[1;2P", ["f13", "page-down", "f13"]),
        (b"\x1b[1;5C\x1b[99~n", ["n"]),
        (b"\xc3\xa4\x01", []),
    ],
)
def test_keys_by_their_names(received: bytes, names: list[str]):
    assert list(key_names(received)) == names


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    controller, device = pty.openpty()
    yield controller, device
    os.close(controller)
    os.close(device)


def test_a_terminal_is_listened_to_and_left_as_it_was(terminal: tuple[int, int]):
    import termios

    controller, device = terminal
    before = termios.tcgetattr(device)
    pressed: list[Control] = []
    with TerminalKeys(KeyMap.parse("b=next-task"), pressed.append, device).listening() as there:
        assert there
        for sent in (b"\x1b[C", b"b", b"\x1b"):
            os.write(controller, sent)
            time.sleep(0.12)
        deadline = time.monotonic() + 3
        while len(pressed) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert pressed == [Control.ADVANCE, Control.NEXT_TASK, Control.STOP]
    assert termios.tcgetattr(device) == before


@pytest.mark.parametrize(("answer", "meant"), [("y", True), ("Yes", True), ("", False), ("n", False)])
def test_only_a_yes_at_a_terminal_is_a_yes(
    terminal: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    meant: bool,
):
    """It decides whether an arm goes limp."""
    controller, device = terminal
    with os.fdopen(os.dup(device)) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        os.write(controller, f"{answer}\n".encode())
        assert confirmed("May the arm let go?") is meant
    assert capsys.readouterr().err == "May the arm let go? [y/N] "


def test_where_nobody_can_answer_the_answer_is_no(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    assert not confirmed("May the arm let go?")


def test_what_is_no_terminal_is_left_alone():
    reading, writing = os.pipe()
    with TerminalKeys(KeyMap.default(), lambda control: None, reading).listening() as there:
        assert not there
    os.close(reading)
    os.close(writing)


def test_a_console_that_is_no_terminal_prints_a_line_per_phase():
    stream = StringIO()
    console = TerminalConsole(KeyMap.default(), stream)
    for elapsed in (0.0, 1.0, 2.0):
        console.show(SessionStatus(Phase.RECORDING, "push-cube", "push it", 1, 3, elapsed_s=elapsed))
    console.show(SessionStatus(Phase.REVIEW, "push-cube", "push it", 1, 3, note="Keep it?", late_ticks=2))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == "1/3  recording  'push it'  0 s  right or n ends, left or r again"
    assert lines[1].endswith("0 s, 2 late  Keep it?")
