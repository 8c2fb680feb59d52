import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.runs import portions, runs


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 9)), max_size=8))
def test_runs_stand_one_after_the_other(pieces):
    begins, counts = (np.array([piece[place] for piece in pieces], dtype=np.int64) for place in (0, 1))
    assert runs(begins, counts).tolist() == [begin + i for begin, count in pieces for i in range(count)]


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_portions_are_consecutive_and_about_as_large_as_asked(counts, most):
    parts = list(portions(np.array(counts, dtype=np.int64), most))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(counts)))
    assert all(sum(counts[part]) < most + max(counts[part]) + 1 for part in parts)
