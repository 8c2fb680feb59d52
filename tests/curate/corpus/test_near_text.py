import random
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.corpus import candidates, near_text
from blm.curate.corpus.near_text import LEAST_MEMORY_BYTES, near_duplicate_text
from blm.curate.corpus.shingles import shingle_sets
from blm.schemas.errors import ConfigError

VOCABULARY = [f"word{i}" for i in range(400)]


def sentence(generator, length=40):
    return " ".join(generator.choice(VOCABULARY) for _ in range(length))


def edited(generator, text, edits):
    words = text.split()
    for _ in range(edits):
        words[generator.randrange(len(words))] = generator.choice(VOCABULARY)
    return " ".join(words)


def exact_jaccard(one, other):
    sets = shingle_sets(pa.array([one, other]))
    first, second = (set(sets.hashes[sets.starts[i] : sets.starts[i + 1]].tolist()) for i in (0, 1))
    return len(first & second) / len(first | second)


def cluster_of(table):
    return dict(zip(table["row"].to_pylist(), table["cluster"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def planted():
    generator = random.Random(3)
    texts = [sentence(generator) for _ in range(3000)]
    pairs = []
    for row in range(0, 3000, 6):
        pairs.append((row, len(texts)))
        texts.append(edited(generator, texts[row], generator.choice((1, 1, 2))))
    return texts, pairs


def test_planted_pairs_are_found_and_nothing_else(planted):
    texts, pairs = planted
    found = near_duplicate_text(pa.array(texts))
    clusters = cluster_of(found)
    alike = [(one, other) for one, other in pairs if exact_jaccard(texts[one], texts[other]) >= 0.7]
    assert len(alike) > 200
    recall = np.mean([clusters.get(one, -1) == clusters.get(other, -2) for one, other in alike])
    assert recall >= 0.97
    for row in found.filter(~pc.field("kept")).to_pylist():
        assert exact_jaccard(texts[row["row"]], texts[row["partner"]]) == pytest.approx(row["similarity"])
        assert row["similarity"] >= 0.7


@given(st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_clusters_hold_one_survivor_the_first_and_join_what_is_joined(seed):
    generator = random.Random(seed)
    texts = []
    for _ in range(6):
        base = sentence(generator, 30)
        texts += [base, *(edited(generator, base, 1) for _ in range(generator.randrange(4)))]
    generator.shuffle(texts)
    found = near_duplicate_text(pa.array(texts), 0.5)
    clusters = cluster_of(found)
    for root in set(clusters.values()):
        members = found.filter(pc.field("cluster") == root).to_pylist()
        assert (
            [row["row"] for row in members if row["kept"]] == [root] == [min(row["row"] for row in members)]
        )
        assert len(members) > 1
    for one, other in combinations(range(len(texts)), 2):
        if exact_jaccard(texts[one], texts[other]) >= 0.85:
            assert clusters[one] == clusters[other]


def test_groups_are_never_compared_with_each_other():
    texts = pa.array([sentence(random.Random(1))] * 4)
    found = near_duplicate_text(texts, groups=np.array([0, 1, 0, 1]))
    assert cluster_of(found) == {0: 0, 2: 0, 1: 1, 3: 1}


def test_a_large_bucket_of_boilerplate_stays_one_cluster(monkeypatch):
    monkeypatch.setattr(candidates, "_LARGE_BUCKET", 8)
    generator = random.Random(5)
    base = sentence(generator, 60)
    texts = [edited(generator, base, 1) for _ in range(80)]
    found = near_duplicate_text(pa.array(texts))
    assert len(set(cluster_of(found).values())) == 1
    assert len(found) == 80


def test_chunks_and_repeated_runs_change_nothing(planted):
    texts, _ = planted
    whole = near_duplicate_text(pa.array(texts))
    assert near_duplicate_text(pa.chunked_array([texts[:77], [], texts[77:]], pa.string())).equals(whole)


def test_texts_may_come_as_arrays_one_after_the_other(planted):
    texts, _ = planted
    arrays = (pa.array(texts[start : start + 500]) for start in range(0, len(texts), 500))
    assert near_duplicate_text(arrays).equals(near_duplicate_text(pa.array(texts)))


def test_less_memory_changes_nothing(planted, monkeypatch):
    texts, _ = planted
    groups = np.arange(len(texts)) % 2
    whole = near_duplicate_text(pa.array(texts), groups=groups)
    blocks = []

    class Watched(near_text.Candidates):
        def __init__(self, folder, block_begins, memory_bytes):
            blocks.append(len(block_begins) - 1)
            super().__init__(folder, block_begins, memory_bytes)

    monkeypatch.setattr(near_text, "Candidates", Watched)
    monkeypatch.setattr(near_text, "LEAST_MEMORY_BYTES", 0)
    assert near_duplicate_text(pa.array(texts), groups=groups, memory_bytes=100_000).equals(whole)
    assert blocks[0] > 1


def test_too_little_memory_is_refused():
    with pytest.raises(ConfigError, match=f"Allow {LEAST_MEMORY_BYTES}"):
        near_duplicate_text(pa.array(["a"]), memory_bytes=1000)


@pytest.mark.parametrize("count", [2, 4])
def test_groups_must_be_as_many_as_texts(count):
    with pytest.raises(ConfigError, match=f"{count} groups for .*3 texts"):
        near_duplicate_text(pa.array(["a", "b", "c"]), groups=np.zeros(count))


def test_short_and_empty_texts_are_alike_only_where_equal():
    found = near_duplicate_text(pa.array(["yes", "no", "Yes.", "", None, "left", "on the left"]))
    assert cluster_of(found) == {0: 0, 2: 0, 3: 3, 4: 3}


def test_no_texts_no_clusters():
    assert len(near_duplicate_text(pa.array([], pa.string()))) == 0


@pytest.mark.parametrize("threshold", [0.2, 1.5])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigError, match="threshold"):
        near_duplicate_text(pa.array(["a"]), threshold)
