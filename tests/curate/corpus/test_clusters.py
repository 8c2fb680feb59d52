import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.corpus.clusters import PairCollection, VerifiedPairs, clusters

pair = st.builds(
    lambda first, gap, similarity: (first, first + gap, similarity),
    st.integers(0, 6),
    st.integers(1, 6),
    st.sampled_from([0.7, 0.8, 0.9, 1.0]),
)


def verified(pairs):
    columns = [np.array(column) for column in zip(*pairs, strict=True)] or [np.zeros(0, np.int64)] * 3
    return VerifiedPairs(columns[0], columns[1], columns[2].astype(float))


@given(st.lists(pair, max_size=40, unique_by=lambda one: one[:2]))
def test_connected_rows_are_one_cluster_whose_first_row_stays(pairs):
    reached = {row: {row} for one in pairs for row in one[:2]}
    for _ in reached:
        for first, second, _ in pairs:
            both = reached[first] | reached[second]
            for row in both:
                reached[row] = reached[row] | both
    found = clusters(verified(pairs)).to_pylist()
    assert [row["row"] for row in found] == sorted(reached)
    for row in found:
        assert row["cluster"] == min(reached[row["row"]])
        assert row["kept"] == (row["cluster"] == row["row"])
        assert row["partner"] in (reached[row["row"]] if not row["kept"] else {-1})
        assert row["kept"] or row["similarity"] in {one[2] for one in pairs}


@given(st.lists(st.lists(pair, max_size=8), max_size=6))
def test_what_memory_does_not_hold_would_not_have_changed_the_clusters(portions):
    roomy, narrow = PairCollection(10**9), PairCollection(400 * 3)
    for pairs in portions:
        for collection in (roomy, narrow):
            collection.add(verified(pairs))
    assert clusters(narrow.pairs()).equals(clusters(roomy.pairs()))
    assert len(narrow.pairs()) <= max(3, 2 * 12)


def test_a_pair_is_named_by_what_brought_a_row_in():
    found = clusters(verified([(0, 1, 0.7), (1, 2, 0.9), (0, 2, 0.8)])).to_pylist()
    assert [(row["row"], row["partner"], row["similarity"]) for row in found] == [
        (0, -1, 1.0),
        (1, 2, 0.8),
        (2, 1, 0.9),
    ]


@pytest.mark.parametrize("collection", [PairCollection(1000), PairCollection(0)])
def test_no_pairs_no_clusters(collection):
    assert len(clusters(collection.pairs())) == 0
