import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.episodes.frames import Frames


@given(st.lists(st.integers(0, 5)).map(sorted))
def test_episodes_are_runs_of_rows(episode):
    rows, values = np.arange(len(episode)), np.zeros((len(episode), 1), np.float32)
    found = Frames(np.array(episode, np.int64), rows, values, values, rows, None).episodes()
    numbers, starts, counts = np.unique(episode, return_index=True, return_counts=True)
    assert [one.tolist() for one in found] == [numbers.tolist(), starts.tolist(), counts.tolist()]
