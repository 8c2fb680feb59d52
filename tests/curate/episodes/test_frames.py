import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.episodes.frames import Frames


def frames(episode: list[int], values: np.ndarray) -> Frames:
    count = len(episode)
    zeros = np.zeros(count, np.int64)
    return Frames(np.array(episode, np.int64), np.arange(count), values, -values, zeros, None)


@given(st.lists(st.integers(0, 5)).map(sorted))
def test_episodes_are_runs_of_rows(episode):
    found = frames(episode, np.zeros((len(episode), 1), np.float32)).episodes()
    numbers, starts, rows = np.unique(episode, return_index=True, return_counts=True)
    assert [one.tolist() for one in found] == [numbers.tolist(), starts.tolist(), rows.tolist()]
