import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.runs import runs


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 9)), max_size=8))
def test_runs_stand_one_after_the_other(pieces):
    begins, counts = (np.array([piece[place] for piece in pieces], dtype=np.int64) for place in (0, 1))
    assert runs(begins, counts).tolist() == [begin + i for begin, count in pieces for i in range(count)]
