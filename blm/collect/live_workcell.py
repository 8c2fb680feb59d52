"""Puts a live session together: which arm, which operator, which consoles, and the recorder.

simulated arm (paced) or hardware ──▶ LiveSession ◀── leader, gamepad, browser page, policy with take-over
                                          │
                                    LiveRecorder ──▶ dataset
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from blm.collect.controls import Control, Controls, KeyMap, Phase
from blm.collect.dataset_writer import check_vacant
from blm.collect.live_config import HUMAN_OPERATORS, TELEOPERATOR, LiveCollectConfig
from blm.collect.live_recorder import LIVE_VIDEO, LiveRecorder
from blm.collect.live_session import Console, LiveConfig, LiveSession, LiveSummary
from blm.collect.operators.terminal import TerminalConsole, TerminalKeys
from blm.collect.recording import Recording
from blm.collect.simulated_cell import SimulatedCell
from blm.schemas.episode import RECORDING_FILE
from blm.schemas.errors import BlmError, UnknownNameError, UsageError
from blm.schemas.rollout import Agent, Observation

_IDLE_POLL_S = 0.02
_LAST_WORD_S = 0.2
"""What a page was told last is on its way for so long."""


def collect_live(
    config: LiveCollectConfig,
    policy: Agent | None = None,
    announce: Callable[[str], None] = print,
) -> LiveSummary:
    """Record with a person at the controls until there are enough episodes, or the person stops.

    `policy` drives until the person takes over, for an operator 'policy:…'. `announce` is given lines for the person.

    Raises:
        UsageError: an unknown operator, or a device without its port.
        MissingExtraError: a library for the device is not installed.
        HardwareError: a robot, leader, gamepad or camera is absent or does not answer.
        OutputExistsError, DatasetError: as the recorder does.
    """
    check_device(config)
    resume = config.resume and (config.output / RECORDING_FILE).is_file()
    if not resume:
        check_vacant(config.output)  # before an arm is powered or a page opened
    keys = KeyMap.parse(config.keys)
    controls = Controls()
    with ExitStack() as stack:
        cell = _cell(config, controls, announce)
        stack.callback(cell.close)
        device = stack.enter_context(_opened_device(config, cell, controls, announce))
        agent = device.agent if policy is None else _with_take_over(policy, device, controls)
        recording = Recording(
            cell.embodiment, cell.simulated, LIVE_VIDEO, str(config.variety), config.can_take_over
        )
        recorder = stack.enter_context(LiveRecorder(config.output, recording, resume=resume, review=True))
        terminal = TerminalConsole(keys)
        stack.callback(terminal.close)
        stack.enter_context(TerminalKeys(keys, controls.press).listening())
        session = LiveSession(
            LiveConfig(
                tasks=config.all_tasks,
                episodes=config.episodes,
                seed=config.seed,
                review=config.review,
                episode_s=config.episode_s,
                reset_s=config.reset_s,
                keep_failures=config.keep_failures,
            ),
            cell.environment,
            agent,
            controls,
            recorder,
            [terminal, *device.consoles],
            simulated=cell.simulated,
        )
        summary = session.run(config.output)
        cell.park()
        return summary


def check_device(config: LiveCollectConfig) -> None:
    """Before anything is loaded or moved: whether there is such a device.

    Raises:
        UnknownNameError: there is none; lists those there are.
    """
    if config.device in HUMAN_OPERATORS or config.teleoperator is not None:
        return
    known = [*HUMAN_OPERATORS, f"{TELEOPERATOR}TYPE"]
    if config.can_take_over:
        raise UnknownNameError("--take-over", config.device, known)
    raise UnknownNameError("operator", config.device, [*known, "planner", "policy:RUN"])


@dataclass
class _Device:
    """What a person drives with."""

    agent: Agent
    consoles: list[Console] = field(default_factory=list)
    watch: Callable[[Observation], None] | None = None


@contextmanager
def _opened_device(
    config: LiveCollectConfig, cell: Any, controls: Controls, announce: Callable[[str], None]
) -> Iterator[_Device]:
    opened = {"gamepad": _gamepad, "browser": _browser}.get(config.device, _leader)
    with opened(config, cell, controls, announce) as device:
        yield device


@contextmanager
def _leader(
    config: LiveCollectConfig, cell: Any, controls: Controls, announce: Callable[[str], None]
) -> Iterator[_Device]:
    from blm.collect.operators.leader import LeaderAgent, leader_links, open_leader

    told: list[str] = []

    def waiting(note: str) -> bool:
        if not told or told[-1] != note:
            told.append(note)
            announce(note)
        return not controls.episode_ended and (not config.can_take_over or _taken_over(controls))

    leader = open_leader(config.robot, config.leader_port, kind=config.teleoperator)
    links = {} if config.teleoperator else leader_links(config.robot)
    agent = LeaderAgent(leader, cell.embodiment, links=links, waiting=waiting)
    try:
        yield _Device(agent)
    finally:
        agent.close()


@contextmanager
def _gamepad(
    config: LiveCollectConfig, cell: Any, controls: Controls, announce: Callable[[str], None]
) -> Iterator[_Device]:
    from blm.collect.operators.gamepad import GamepadAgent, PygamePad

    pad = PygamePad()
    agent = GamepadAgent(pad, cell.driver(), controls.press)
    ended = Event()

    def idle() -> None:
        """Between episodes nobody asks the agent, yet buttons are pressed."""
        while not ended.wait(_IDLE_POLL_S):
            if controls.state.phase not in (Phase.RECORDING,):
                agent.poll()

    thread = Thread(target=idle, name="gamepad buttons", daemon=True)
    thread.start()
    try:
        yield _Device(agent)
    finally:
        ended.set()
        thread.join(timeout=1.0)
        pad.close()


@contextmanager
def _browser(
    config: LiveCollectConfig, cell: Any, controls: Controls, announce: Callable[[str], None]
) -> Iterator[_Device]:
    from blm.collect.operators.browser_agent import BrowserAgent
    from blm.collect.operators.browser_link import BrowserLink
    from blm.collect.operators.browser_server import BrowserServer

    link = BrowserLink(controls.press)
    features = {
        "can_take_over": config.can_take_over,
        "several_tasks": len(config.all_tasks) > 1,
        "keys": dict(KeyMap.parse(config.keys).keys),
    }
    server = BrowserServer(link, bind=config.bind, port=config.web_port, on_gone=lambda: _pause(controls))
    agent = BrowserAgent(link, cell.driver(), cell.view, features)
    with server:
        if server.warning:
            announce(server.warning)
        announce(f"open {server.url}")
        try:
            yield _Device(agent, [agent], agent.watch)
        except BlmError as error:
            agent.fail(str(error))
            raise
        finally:
            time.sleep(_LAST_WORD_S)


def _pause(controls: Controls) -> None:
    """The page went away in the middle of an episode: time stands still until somebody goes on."""
    if controls.state.phase is Phase.RECORDING:
        controls.press(Control.PAUSE)


def _with_take_over(policy: Agent, device: _Device, controls: Controls) -> Agent:
    from blm.collect.operators.take_over import TakeOverAgent

    return TakeOverAgent(policy, device.agent, lambda: _taken_over(controls), device.watch)


def _taken_over(controls: Controls) -> bool:
    """Whether the person has asked for the arm and not given it back."""
    return controls.state.take_overs % 2 == 1


def _cell(config: LiveCollectConfig, controls: Controls, announce: Callable[[str], None]) -> Any:
    if not config.real:
        if config.cameras:
            raise UsageError(
                "--camera is for a real arm, and no --port is given.",
                f"`blm collect --robot {config.robot} --list` shows the ports found.",
            )
        return SimulatedCell(config, controls)
    from blm.collect.hardware_cell import HardwareCell

    return HardwareCell(config, controls, announce)
