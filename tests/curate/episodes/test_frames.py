import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.episodes.frames import Frames, content_hash


def frames(episode: list[int], values: np.ndarray) -> Frames:
    count = len(episode)
    zeros = np.zeros(count, np.int64)
    return Frames(np.array(episode, np.int64), np.arange(count), values, -values, zeros, None)


@given(st.lists(st.integers(0, 5)).map(sorted))
def test_episodes_are_runs_of_rows(episode):
    found = frames(episode, np.zeros((len(episode), 1), np.float32)).episodes()
    numbers, starts, rows = np.unique(episode, return_index=True, return_counts=True)
    assert [one.tolist() for one in found] == [numbers.tolist(), starts.tolist(), rows.tolist()]


def test_content_is_told_apart_and_known_again_wherever_it_lies():
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    alone, among_others = frames([4] * 3, values[:3]), frames([1, 1, 9, 9, 9], values[[4, 5, 0, 1, 2]])
    assert content_hash(alone, slice(0, 3)) == content_hash(among_others, slice(2, 5))
    content = values[:3].tobytes() + (-values[:3]).tobytes()
    assert content_hash(alone, slice(0, 3)) == hashlib.sha256(content).hexdigest()
    for changed in (values[:3] + 1, values[:3, ::-1], values[:3].T.reshape(3, 2)):
        assert content_hash(frames([4] * 3, changed), slice(0, 3)) != content_hash(alone, slice(0, 3))
