from collections import Counter
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.episodes.checks import Checked, check_episodes
from blm.curate.episodes.measures import MEASURES
from blm.curate.episodes.reasons import REASONS, RULES, Reason
from blm.curate.episodes.thresholds import CheckSetting, Thresholds

GOOD = {
    "dataset": "a",
    "episode": 0,
    "embodiment": "so100",
    "task": "push-cube",
    "instruction": "push it",
    "recorded_instruction": "push it",
    "success": "yes",
    "rate_hz": 20.0,
    "length": 100,
    "rows": 100,
    "video_frames": 100,
    "contiguous": True,
    "finite": True,
    "unreadable": None,
    "missing_videos": [],
    "top_speed": 1.0,
    "moves_from": 0,
    "moves_to": 95,
    "identity": "",
    "instructions": 1,
    "contradictions": [],
    "idle_fraction": 0.1,
    "constant_axes": 0,
    "action_jump": 0.8,
    "state_jump": 0.8,
    "velocity_ratio": 0.8,
    "jerky_fraction": 0.0,
    "saturated_s": 0.2,
    "lag_s": 0.1,
    "gripper_range": 1.0,
    "backward_steps": 0,
    "longest_gap_periods": 1.0,
}
SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in (
                "dataset",
                "embodiment",
                "task",
                "instruction",
                "recorded_instruction",
                "success",
                "unreadable",
                "identity",
            )
        ),
        *(
            (name, pa.int64())
            for name in (
                "episode",
                "length",
                "rows",
                "video_frames",
                "moves_from",
                "moves_to",
                "instructions",
                "constant_axes",
                "backward_steps",
            )
        ),
        *(
            (name, pa.float64())
            for name in (
                "rate_hz",
                "top_speed",
                "idle_fraction",
                "action_jump",
                "state_jump",
                "velocity_ratio",
                "jerky_fraction",
                "saturated_s",
                "lag_s",
                "gripper_range",
                "longest_gap_periods",
            )
        ),
        *((name, pa.bool_()) for name in ("contiguous", "finite")),
        *((name, pa.list_(pa.string())) for name in ("contradictions", "missing_videos")),
    ]
)
FAULTS = {
    "unreadable_data": {
        "unreadable": "cut off",
        "rows": 0,
        "finite": False,
        "contiguous": False,
        "identity": None,
    },
    "wrong_length": {"video_frames": 99},
    "missing_video": {"missing_videos": ["top"]},
    "not_finite": {"finite": False},
    "duplicate": {"identity": "0"},
    "not_successful": {"success": "no"},
    "idle_episode": {"top_speed": 0.001, "moves_from": None, "moves_to": None},
    "too_short": {"moves_from": 40, "moves_to": 40, "rows": 48, "length": 48, "video_frames": 48},
    "too_long": {"rows": 900, "length": 900, "video_frames": 900, "moves_to": 895},
    "non_monotonic_time": {"backward_steps": 1},
    "constant_axis": {"constant_axes": 2},
    "empty_instruction": {"instruction": "", "recorded_instruction": " "},
    "overlong_instruction": {"instruction": "push " * 500, "recorded_instruction": "push " * 500},
    "mismatched_instruction": {"contradictions": ["nothing red in the scene"]},
    "several_instructions": {"instructions": 2},
    "instruction_variant": {"recorded_instruction": "Push it."},
    "unusually_short": {"rows": 20, "length": 20, "video_frames": 20, "moves_to": 15},
    "mostly_idle": {"idle_fraction": 0.6},
    "action_jump": {"action_jump": 5.0},
    "state_jump": {"state_jump": 5.0},
    "over_velocity": {"velocity_ratio": 2.0},
    "over_jerk": {"jerky_fraction": 0.7},
    "saturated_axis": {"saturated_s": 3.0},
    "late_state": {"lag_s": 0.7},
    "early_state": {"lag_s": -0.05},
    "time_gap": {"longest_gap_periods": 4.0},
    "idle_gripper": {"gripper_range": 0.0},
}
NAMES = cast(list[Reason], list(FAULTS))
DROPPING: list[Reason] = [reason for reason in NAMES if RULES[reason].severity == "drop"]
WARNING: list[Reason] = [reason for reason in NAMES if RULES[reason].severity == "warn"]
ELSEWHERE = {"unreadable_video", "near_duplicate", "black_frames", "frozen_frames", "blurred_frames"}
STRICT = Thresholds(min_duration_s=0.8)


def table(*changes: dict) -> pa.Table:
    rows = [
        GOOD | {"episode": number, "identity": str(number)} | change for number, change in enumerate(changes)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def reasons(given: pa.Table, thresholds: Thresholds = STRICT) -> dict[int, str]:
    return {row["episode"]: row["reason"] for row in check_episodes(given, thresholds).dropped.to_pylist()}


def test_there_is_a_fault_for_every_check():
    assert set(MEASURES) == set(FAULTS) == set(REASONS) - ELSEWHERE
    assert set(RULES) == set(REASONS)


def beside_good_ones() -> pa.Table:
    """Every fault in episode 4 of a dataset and a task called after it, beside four good episodes."""
    rows = []
    for reason, fault in FAULTS.items():
        own = {"dataset": reason, "task": f"{reason} push-cube"}
        for number, change in enumerate([{}, {}, {}, {}, fault]):
            identity = change.get("identity", str(number))
            rows.append(own | change | {"episode": number, "identity": identity and f"{reason} {identity}"})
    return table(*rows)


@pytest.fixture(scope="module")
def checked() -> Checked:
    return check_episodes(beside_good_ones(), STRICT)


@pytest.fixture(scope="module")
def told_to_drop() -> Checked:
    checks: dict[Reason, CheckSetting] = {reason: CheckSetting(severity="drop") for reason in WARNING}
    return check_episodes(beside_good_ones(), STRICT, checks=checks)


def of(reason: str, rows: pa.Table) -> list[dict]:
    return rows.filter(pc.field("dataset") == reason).to_pylist()


@pytest.mark.parametrize("reason", FAULTS)
def test_each_fault_is_found_alone_and_nothing_on_the_others(reason, checked):
    found = of(reason, checked.findings)
    expected = {reason, "unusually_short"} if reason == "too_short" else {reason}
    assert {(row["episode"], row["reason"]) for row in found} <= {(4, one) for one in expected}
    (row,) = (row for row in found if row["reason"] == reason)
    assert (row["severity"], row["threshold"], row["unit"]) == (
        RULES[reason].severity,
        0.8 if reason == "too_short" else RULES[reason].threshold,
        RULES[reason].unit,
    )


@pytest.mark.parametrize("reason", WARNING)
def test_a_warning_drops_nothing_unless_it_is_told_to(reason, checked, told_to_drop):
    assert len(of(reason, checked.kept)) == 5
    assert [row["reason"] for row in of(reason, told_to_drop.dropped)] == [reason]


def test_a_check_can_be_turned_off_and_its_threshold_moved():
    rows = table({}, {"velocity_ratio": 2.0}, {"lag_s": -0.05})
    checks: dict[Reason, CheckSetting] = {
        "over_velocity": CheckSetting(threshold=3.0),
        "early_state": CheckSetting(severity="off"),
    }
    assert not len(check_episodes(rows, Thresholds(), checks=checks).findings)


def test_second_reasons_are_findings_too():
    checked = check_episodes(table({}, {"finite": False, "success": "no", "lag_s": 0.9}), Thresholds())
    assert [row["reason"] for row in checked.dropped.to_pylist()] == ["not_finite"]
    assert [row["reason"] for row in checked.findings.to_pylist()] == [
        "not_finite",
        "not_successful",
        "late_state",
    ]


def test_a_gripper_need_not_move_where_the_task_is_done_without_it():
    still = {"gripper_range": 0.0}
    assert not len(check_episodes(table(still, still, still), Thresholds()).findings)
    picking = still | {"task": "pick-cube"}
    assert len(check_episodes(table(picking, picking, picking), Thresholds()).findings) == 3


@pytest.mark.parametrize("reason", DROPPING)
def test_each_fault_is_dropped_for_its_reason_with_value_and_threshold(reason, checked):
    (row,) = of(reason, checked.dropped)
    assert (row["episode"], row["reason"]) == (4, reason)
    assert row["value"] != row["threshold"]
    assert [row["episode"] for row in of(reason, checked.kept)] == [0, 1, 2, 3]


def test_words_say_what_a_number_cannot():
    dropped = check_episodes(
        table({}, FAULTS["wrong_length"], FAULTS["missing_video"]), STRICT
    ).dropped.to_pylist()
    assert [row["note"] for row in dropped] == ["100 frames announced, 100 rows, 99 video frames", "top"]


@settings(max_examples=8, deadline=None)
@given(faults=st.lists(st.sampled_from(["good", *DROPPING]), min_size=1, max_size=40))
def test_episodes_in_are_kept_plus_dropped(faults):
    given_rows = table(*(FAULTS.get(name, {}) for name in faults))
    checked = check_episodes(given_rows, STRICT)
    assert len(given_rows) == len(checked.kept) + len(checked.dropped)
    seen = Counter([*checked.kept["episode"].to_pylist(), *checked.dropped["episode"].to_pylist()])
    assert seen == Counter(range(len(faults)))
    assert set(checked.dropped["reason"].to_pylist()) <= set(REASONS)


def test_order_of_rows_does_not_matter():
    rows = table({}, FAULTS["too_long"], {}, FAULTS["duplicate"], {})
    turned = rows.take(list(reversed(range(len(rows)))))
    assert check_episodes(rows, STRICT).kept.equals(check_episodes(turned, STRICT).kept)
    assert reasons(rows) == reasons(turned)


def test_a_duplicate_of_a_dropped_episode_takes_its_place():
    failed = {"identity": "same", "finite": False}
    assert reasons(table(failed, {"identity": "same"}, {"identity": "same"})) == {
        0: "not_finite",
        2: "duplicate",
    }


def test_unknown_outcomes_pass_and_failures_pass_when_allowed():
    rows = table({"success": "unknown"}, {"success": "no"})
    assert reasons(rows) == {1: "not_successful"}
    assert reasons(rows, Thresholds(require_success=False)) == {}


def test_too_long_is_measured_against_the_same_robot_and_task():
    slow = FAULTS["too_long"] | {"task": "stack-cube"}
    assert reasons(table({}, {}, slow, slow)) == {}


@pytest.mark.parametrize(
    ("moves_from", "moves_to", "expected"),
    [(0, 95, (0, 100)), (30, 60, (25, 70)), (3, 60, (0, 70)), (30, 91, (25, 100))],
)
def test_idle_ends_are_trimmed_but_for_a_margin(moves_from, moves_to, expected):
    # at 20 Hz the margin of 0.25 s is 5 frames; the last window spans 4 frames beyond its first
    rows = table({"moves_from": moves_from, "moves_to": moves_to})
    (row,) = check_episodes(rows, Thresholds()).kept.to_pylist()
    assert (row["start"], row["stop"]) == expected
    assert row["kept_s"] == (expected[1] - expected[0]) / 20
    (whole,) = check_episodes(rows, Thresholds(), trim_idle=False).kept.to_pylist()
    assert (whole["start"], whole["stop"]) == (0, 100)
