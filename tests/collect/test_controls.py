"""What controls do in which phase, keys, and the waiting between threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.collect.controls import (
    DEFAULT_KEYS,
    Control,
    Controls,
    KeyMap,
    Phase,
    SessionState,
    Verdict,
    after,
)
from blm.schemas.errors import ConfigError

MARKS = st.sampled_from(list(Control))


def pressed(*controls: Control, state: SessionState | None = None) -> SessionState:
    state = state or SessionState()
    for control in controls:
        state = after(state, control)
    return state


@pytest.mark.parametrize(
    ("controls", "phase", "verdict"),
    [
        ((), Phase.READY, Verdict()),
        ((Control.ADVANCE,), Phase.RECORDING, Verdict()),
        ((Control.ADVANCE, Control.ADVANCE), Phase.REVIEW, Verdict()),
        ((Control.ADVANCE, Control.ADVANCE, Control.ADVANCE), Phase.DECIDED, Verdict(kept=True)),
        ((Control.ADVANCE, Control.ADVANCE, Control.RERECORD), Phase.DECIDED, Verdict(kept=False)),
        ((Control.ADVANCE, Control.RERECORD), Phase.DECIDED, Verdict(kept=False)),
        ((Control.ADVANCE, Control.SUCCESS), Phase.REVIEW, Verdict(success=True)),
        (
            (Control.ADVANCE, Control.SUCCESS, Control.FAILURE, Control.ADVANCE),
            Phase.DECIDED,
            Verdict(kept=True, success=False),
        ),
        ((Control.ADVANCE, Control.PAUSE), Phase.PAUSED, Verdict()),
        ((Control.ADVANCE, Control.PAUSE, Control.PAUSE), Phase.RECORDING, Verdict()),
        ((Control.RERECORD, Control.PAUSE, Control.SUCCESS), Phase.READY, Verdict()),
        ((Control.ADVANCE, Control.EMERGENCY_STOP, Control.ADVANCE), Phase.HALTED, Verdict()),
        ((Control.ADVANCE, Control.EMERGENCY_STOP, Control.RERECORD), Phase.DECIDED, Verdict(kept=False)),
        ((Control.STOP,), Phase.DONE, Verdict()),
    ],
)
def test_what_controls_lead_to(controls: tuple[Control, ...], phase: Phase, verdict: Verdict):
    state = pressed(*controls)
    assert (state.phase, state.verdict) == (phase, verdict)


def test_stopping_in_an_episode_lets_it_be_judged_first():
    state = pressed(Control.ADVANCE, Control.STOP)
    assert (state.phase, state.stopping) == (Phase.REVIEW, True)
    kept = after(state, Control.ADVANCE)
    assert (kept.phase, kept.verdict.kept, kept.stopping) == (Phase.DECIDED, True, True)
    dropped = after(state, Control.STOP)
    assert (dropped.phase, dropped.verdict.kept) == (Phase.DECIDED, False)


@given(st.lists(MARKS, max_size=30))
def test_whatever_is_pressed_an_emergency_stop_halts_unless_all_is_over(controls: list[Control]):
    state = pressed(*controls)
    halted = after(state, Control.EMERGENCY_STOP)
    assert halted.phase is (Phase.DONE if state.phase is Phase.DONE else Phase.HALTED)
    assert after(halted, Control.ADVANCE).phase is not Phase.RECORDING


@given(st.lists(MARKS, max_size=30))
def test_a_decision_waits_for_the_session(controls: list[Control]):
    """Somebody who presses too often must not skip an episode that is not stored yet."""
    decided = pressed(Control.ADVANCE, Control.ADVANCE, Control.ADVANCE)
    later = pressed(*(c for c in controls if c is not Control.EMERGENCY_STOP), state=decided)
    assert (later.phase, later.verdict.kept) == (Phase.DECIDED, True)


def test_keys_can_be_mapped(tmp_path: Path):
    assert KeyMap.parse("").keys == DEFAULT_KEYS
    changed = KeyMap.parse("b=advance, F13=re-record, page-down=pause")
    assert changed.keys == {
        **DEFAULT_KEYS,
        "b": Control.ADVANCE,
        "f13": Control.RERECORD,
        "page-down": Control.PAUSE,
    }
    assert changed.of(Control.ADVANCE) == "right or n or b"
    file = tmp_path / "pedal.yaml"
    file.write_text("b: advance\n")
    assert KeyMap.parse(str(file)).keys["b"] is Control.ADVANCE


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("b", "'b' is not KEY=CONTROL"),
        ("b=jump", "'jump' .key 'b'. is no control.*re-record"),
        (
            "pedal=advance",
            "no key 'pedal'; keys are single characters or right, left, .*page-down, f1 to f24",
        ),
        ("space=pause", "no key is left for emergency-stop"),
        ("escape=pause,q=pause", "no key is left for stop"),
    ],
)
def test_wrong_keys_are_explained(text: str, named: str):
    with pytest.raises(ConfigError, match=named):
        KeyMap.parse(text)


def test_an_emergency_acts_at_once_in_the_thread_that_pressed():
    controls, threads = Controls(), []
    controls.on_emergency.append(lambda: threads.append(threading.current_thread().name))
    released: list[str] = []
    controls.on_release.append(lambda: released.append("released"))
    thread = threading.Thread(target=lambda: controls.press(Control.EMERGENCY_STOP), name="presser")
    thread.start()
    thread.join()
    assert threads == ["presser"]
    assert controls.state.phase is Phase.HALTED
    assert released == []
    controls.press(Control.RERECORD)
    assert released == ["released"]
    controls.acknowledge()
    assert controls.state.phase is Phase.READY


def test_waiting_ends_with_a_change_or_in_time():
    controls = Controls()
    known = controls.state
    assert controls.wait_for_change(known, 0.01) is known
    threading.Timer(0.02, lambda: controls.press(Control.ADVANCE)).start()
    assert controls.wait_for_change(known, 5.0).phase is Phase.RECORDING
