from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.episodes.checks import CHECKS, REASONS, check_episodes
from blm.curate.episodes.config import Thresholds

GOOD = {
    "dataset": "a",
    "episode": 0,
    "embodiment": "so100",
    "task": "push-cube",
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
}
SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("dataset", "embodiment", "task", "success", "unreadable", "identity")
        ),
        *(
            (name, pa.int64())
            for name in ("episode", "length", "rows", "video_frames", "moves_from", "moves_to")
        ),
        *((name, pa.float64()) for name in ("rate_hz", "top_speed")),
        *((name, pa.bool_()) for name in ("contiguous", "finite")),
        ("missing_videos", pa.list_(pa.string())),
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
}
STRICT = Thresholds(min_duration_s=0.8)


def table(*changes: dict) -> pa.Table:
    rows = [
        GOOD | {"episode": number, "identity": str(number)} | change for number, change in enumerate(changes)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def reasons(given: pa.Table, thresholds: Thresholds = STRICT) -> dict[int, str]:
    return {row["episode"]: row["reason"] for row in check_episodes(given, thresholds).dropped.to_pylist()}


def test_there_is_a_fault_for_every_check():
    assert {make(STRICT).reason for make in CHECKS} == set(FAULTS) == set(REASONS) - {"unreadable_video"}


@pytest.mark.parametrize("reason", FAULTS)
def test_each_fault_is_dropped_for_its_reason_with_value_and_threshold(reason):
    checked = check_episodes(table({}, {}, {}, {}, FAULTS[reason]), STRICT)
    (row,) = checked.dropped.to_pylist()
    assert (row["episode"], row["reason"]) == (4, reason)
    assert row["value"] != row["threshold"]
    assert checked.kept["episode"].to_pylist() == [0, 1, 2, 3]


def test_words_say_what_a_number_cannot():
    dropped = check_episodes(
        table({}, FAULTS["wrong_length"], FAULTS["missing_video"]), STRICT
    ).dropped.to_pylist()
    assert [row["note"] for row in dropped] == ["100 frames announced, 100 rows, 99 video frames", "top"]


@settings(max_examples=25, deadline=None)
@given(faults=st.lists(st.sampled_from(["good", *FAULTS]), min_size=1, max_size=12))
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
