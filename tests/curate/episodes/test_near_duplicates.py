"""Near-duplicate paths at the edges of what counts as one: shifts, cuts, speeds, thresholds, few episodes."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.episodes.checks import Checked, check_episodes
from blm.curate.episodes.config import SplitsConfig
from blm.curate.episodes.near_duplicates import find_near_duplicates
from blm.curate.episodes.splits import assign_splits
from blm.curate.episodes.trajectories import POINTS
from tests.curate.episodes.test_checks import GOOD, SCHEMA

AXES = 4
THRESHOLD = 0.002
DURATION_S = 6.0


def way(seed: int, share: np.ndarray) -> np.ndarray:
    """(len(share), A) a smooth path of axis ranges, the same for a seed, at `share` of its time."""
    dice = np.random.default_rng(seed)
    height, phase = dice.uniform(0.1, 0.4, (3, AXES)), dice.uniform(0, 0.4, (3, AXES))
    waves = np.array([0.5, 1.0, 1.7])[:, None]
    parts = [
        height[k] * (np.sin(np.pi * waves[k] * share[:, None] + phase[k]) - np.sin(phase[k]))
        for k in range(3)
    ]
    return np.sum(parts, axis=0)


def recorded(seed: int, begin: float = 0.0, end: float = 1.0) -> np.ndarray:
    """A recording of the path from `begin` to `end` of its time."""
    return way(seed, np.linspace(begin, end, POINTS)).astype(np.float32)


def groups(*recordings: tuple[np.ndarray, float], threshold: float = THRESHOLD) -> list[int]:
    paths, seconds = zip(*recordings, strict=True)
    return find_near_duplicates(np.stack(paths), np.array(seconds), threshold).group.tolist()


def cut(seed: int, begin: float, end: float) -> tuple[np.ndarray, float]:
    return recorded(seed, begin, end), DURATION_S * (end - begin)


def test_none_and_one_and_two_strangers():
    empty = find_near_duplicates(np.zeros((0, POINTS, AXES), np.float32), np.zeros(0), THRESHOLD)
    assert (len(empty.group), len(empty.partner), len(empty.distance)) == (0, 0, 0)
    assert groups(cut(1, 0, 1)) == [0]
    assert groups(cut(1, 0, 1), cut(2, 0, 1)) == [0, 1]


def test_the_later_one_names_the_earlier_and_how_far_apart_they_are():
    shifted = recorded(1) + np.float32(0.001)
    paths = np.stack([recorded(2), recorded(1), recorded(3), shifted])
    found = find_near_duplicates(paths, np.full(4, DURATION_S), THRESHOLD)
    assert found.group.tolist() == [0, 1, 2, 1]
    assert found.partner.tolist() == [-1, -1, -1, 1]
    assert found.distance[3] == pytest.approx(0.001, rel=0.1)
    assert np.isnan(found.distance[:3]).all()


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 0.95), (0.02, 1), (0, 0.8)], ids=["end cut", "beginning cut", "fifth cut"]
)
def test_a_recording_begun_or_ended_otherwise_is_the_same_path(begin, end):
    assert groups(cut(5, 0, 1), cut(5, begin, end)) == [0, 0]


def test_what_a_longer_recording_holds_is_the_same_path():
    assert groups(cut(5, 0, 1), cut(5, 0, 0.5)) == [0, 0]


def test_recordings_that_share_only_a_third_are_two():
    assert groups(cut(5, 0, 0.6), cut(5, 0.4, 1)) == [0, 1]


def test_another_speed_is_another_path():
    assert groups((recorded(5), 6.0), (recorded(5), 9.0)) == [0, 1]


@pytest.mark.parametrize(("offset", "alike"), [(0.0015, True), (0.0025, False)])
def test_the_threshold_is_where_it_says(offset, alike):
    moved = recorded(5) + np.float32(offset)
    assert groups((recorded(5), DURATION_S), (moved, DURATION_S)) == [0, 0 if alike else 1]


def test_a_chain_is_one_group():
    """The first and the last are further apart than the threshold; who is between joins them."""
    chain = [(recorded(5) + np.float32(0.0015 * step), DURATION_S) for step in range(4)]
    assert groups(*chain) == [0, 0, 0, 0]
    assert groups(chain[0], chain[3]) == [0, 1]


def test_what_is_not_finite_is_alone():
    spoilt = recorded(5)
    spoilt[10, 2] = np.nan
    assert groups((recorded(5), 6.0), (spoilt, 6.0), (recorded(5), 6.0), (spoilt, 6.0)) == [0, 1, 0, 3]


def test_arms_that_stand_still_and_motions_of_no_time_do_no_harm():
    still = np.zeros((POINTS, AXES), np.float32)
    assert groups((still, 0.0), (still, 0.0), (recorded(5), 6.0))[2] == 2
    assert groups((recorded(5), 0.0), (recorded(6), 0.0)) == [0, 1]


def test_one_axis_is_enough():
    paths = np.stack([recorded(5)[:, :1], recorded(6)[:, :1], recorded(5)[:, :1]])
    assert find_near_duplicates(paths, np.full(3, 6.0), THRESHOLD).group.tolist() == [0, 1, 0]


@settings(max_examples=20, deadline=None)
@given(st.permutations([1, 1, 2, 3, 3, 3, 4]))
def test_the_order_decides_only_who_is_first(seeds):
    found = groups(*(cut(seed, 0, 1) for seed in seeds))
    assert found == [seeds.index(seed) for seed in seeds]


IN_TEST, IN_TRAINING = f"{6:064x}", f"{0:064x}"
"""Contents whose own splits, with seed 0, are these."""


def checked_pair(*changes: dict[str, Any], **settings: Any) -> tuple[Checked, dict[int, str]]:
    """What comes of two recordings of one path, with these changes, and the splits of those kept."""
    rows = [
        GOOD | {"episode": number, "signature": (recorded(5) + np.float32(0.001 * number)).tobytes()} | change
        for number, change in enumerate(changes)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA.append(pa.field("signature", pa.binary())))
    config = SplitsConfig.model_validate({"datasets": ["d"], "output": "o", **settings})
    checked = check_episodes(table, config.thresholds, checks=config.checks)
    kept = assign_splits(checked.kept, config, checked.relatives).to_pylist()
    return checked, {row["episode"]: row["split"] for row in kept}


def test_a_dropped_episode_still_holds_its_near_duplicates_back():
    both, splits = checked_pair({"identity": IN_TEST}, {"identity": IN_TRAINING})
    assert splits == {0: "test", 1: "test"}
    assert both.findings["reason"].to_pylist() == ["near_duplicate"]
    one, splits = checked_pair({"identity": IN_TEST, "success": "no"}, {"identity": IN_TRAINING})
    assert splits == {1: "test"}
    assert one.findings["reason"].to_pylist() == ["not_successful"]
    assert one.relatives["episode"].to_pylist() == [0]


@pytest.mark.parametrize("order", [(IN_TEST, IN_TRAINING), (IN_TRAINING, IN_TEST)])
def test_where_near_duplicates_are_dropped_the_one_that_stays_is_held_back(order):
    drop = {"near_duplicate": {"severity": "drop"}}
    assert checked_pair(*({"identity": one} for one in order), checks=drop)[1] == {0: "test"}


def test_a_dropped_episode_of_a_held_out_task_holds_back_what_is_the_same_motion():
    """Were it otherwise, the copy that comes first would decide, and a new dataset could turn that round."""
    held_out = [{"name": "stacking", "task": "stack-cube"}]
    rows = {"identity": IN_TRAINING}, {"identity": IN_TRAINING, "task": "stack-cube"}
    other = {"identity": "7", "task": "stack-cube", "signature": recorded(9).tobytes()}
    checked, splits = checked_pair(*rows, other, held_out=held_out)
    assert checked.dropped["reason"].to_pylist() == ["duplicate"]
    assert splits == {0: "test-stacking", 2: "test-stacking"}


@pytest.mark.parametrize("setting", [{"severity": "off"}, {"threshold": 0.0005}])
def test_a_stricter_or_absent_threshold_gives_episodes_back_to_training(setting):
    """As the documentation says: which paths are one is part of what a split means."""
    rows = {"identity": IN_TEST}, {"identity": IN_TRAINING}
    assert checked_pair(*rows, checks={"near_duplicate": setting})[1] == {0: "test", 1: "train"}
