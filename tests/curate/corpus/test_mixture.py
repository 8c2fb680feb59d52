import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig, Source
from blm.curate.corpus.mixture import Entry, Mixture, balanced, entries, left_out
from blm.schemas.corpus import CorpusRecord, Message, Part


def some(counts: dict[tuple[str, str], int]) -> list[Entry]:
    rows = [pair for pair, count in counts.items() for _ in range(count)]
    return [
        Entry(row, source, family, f"{row * 7919 % 10007:05d}".encode())
        for row, (source, family) in enumerate(rows)
    ]


def kept(listed: list[Entry], mixture: Mixture) -> Counter[tuple[str, str]]:
    out = left_out(listed, mixture)
    return Counter((one.source, one.family) for one in listed if one.row not in out)


SIZES = {("big", "spatial"): 900, ("mid", "spatial"): 90, ("small", "general"): 10}


def test_the_default_keeps_everything():
    assert Mixture().keeps_everything
    assert left_out(some(SIZES), Mixture()) == {}


def test_temperature_worked_out_by_hand():
    # √900 : √90 : √10 = 30 : 9.49 : 3.16; with the smallest whole, that is 94.9, 30 and 10.
    assert balanced({"big": 900, "mid": 90, "small": 10}, Mixture(temperature=2)) == {
        "big": 94,
        "mid": 30,
        "small": 10,
    }
    assert balanced({"a": 900, "b": 10}, Mixture(temperature=1e9))["a"] == pytest.approx(10, abs=1)


def test_a_total_is_filled_with_what_larger_sources_have_left():
    # In proportion 1 : 1 : 1, 130 would be 43 each; 'small' has 10, so that the others share 120.
    sizes = {"big": 900, "mid": 90, "small": 10}
    found = balanced(sizes, Mixture(temperature=1e9, conversations=130))
    assert found == {"big": pytest.approx(60, abs=1), "mid": pytest.approx(60, abs=1), "small": 10}
    assert balanced(sizes, Mixture(conversations=5000)) == sizes


def test_caps_and_the_floor_for_general_instructions():
    listed = some(SIZES)
    assert kept(listed, Mixture(per_source=50, sources={"mid": 5}))["big", "spatial"] == 50
    assert kept(listed, Mixture(per_source=50, sources={"mid": 5}))["mid", "spatial"] == 5
    assert sum(kept(listed, Mixture(families={"spatial": 100})).values()) == 110
    floored = kept(listed, Mixture(least_general=0.2))
    assert floored["small", "general"] == 10
    assert sum(floored.values()) == 50
    reasons = Counter(left_out(listed, Mixture(per_source=100, least_general=0.2)).values())
    assert reasons == {"source_cap": 800, "general_floor": 150}


def test_without_general_instructions_the_floor_leaves_everything():
    assert left_out(some({("a", "spatial"): 5}), Mixture(least_general=0.5)) == {}


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 400), min_size=1),
    st.floats(1, 10),
    st.integers(1, 1500),
)
def test_a_total_is_reached_but_for_rounding(sizes, temperature, total):
    found = balanced(sizes, Mixture(temperature=temperature, conversations=total))
    assert all(0 <= found[name] <= sizes[name] for name in sizes)
    reached = sum(found.values())
    assert reached <= min(total, sum(sizes.values()))
    assert reached > min(total, sum(sizes.values())) - len(sizes) - 1


def record(number: int) -> CorpusRecord:
    messages = (Message("user", (Part("text", f"{number}?"),)), Message("assistant", (Part("text", "!"),)))
    return CorpusRecord(f"r{number}", messages, (), "s", "MIT", "digital", "general")


def test_what_is_added_takes_places_but_does_not_exchange_the_rest():
    few = entries(((number, record(number)) for number in range(200)), seed=1)
    many = entries(((number, record(number)) for number in range(400)), seed=1)
    mixture = Mixture(per_source=100)
    stay_few = {one.row for one in few} - set(left_out(few, mixture))
    stay_many = {one.row for one in many} - set(left_out(many, mixture))
    assert {row for row in stay_many if row < 200} <= stay_few
    other = entries(((number, record(number)) for number in range(200)), seed=2)
    assert {one.row for one in other} - set(left_out(other, mixture)) != stay_few


def test_the_build_leaves_out_what_the_mixture_says_and_names_it(tmp_path):
    paths = {}
    for name, count in (("many", 30), ("few", 5)):
        chats = [
            {
                "messages": [
                    {"role": "user", "content": f"{name} {i}?"},
                    {"role": "assistant", "content": f"{i}."},
                ]
            }
            for i in range(count)
        ]
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(chats))
    sources = tuple(Source(kind="llava", path=path, name=name) for name, path in paths.items())
    mixture = Mixture(per_source=8)
    summary = build_corpus(CorpusConfig(sources=sources, output=tmp_path / "out", mixture=mixture))
    assert summary.counts.kept == 13
    assert summary.counts.dropped == {"source_cap": 22}
    drops = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert {(one["source"], one["stage"], one["reason"]) for one in drops} == {
        ("many", "mixture", "source_cap")
    }
