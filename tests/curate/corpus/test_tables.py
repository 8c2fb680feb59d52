"""Every stage on a table of records does what it does in a build."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.inputs import read_inputs
from blm.curate.corpus.stages import STAGES
from blm.curate.corpus.tables import ALL_STAGES, apply_stage
from blm.schemas.corpus import records_to_table
from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.schemas.progress import silent
from tests.curate.corpus.test_near_images import encoded, photograph

RULES = {
    "licences": {"deny": ["*-nc"]},
    "near_duplicates": {"text": 0.7, "images": "any_text"},
    "mixture": {"per_family": 14},
    "quality": {"skip": ["links"]},
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Photographs and texts of which each stage drops some."""
    folder = tmp_path_factory.mktemp("staged")
    long = "Please describe in every detail how one may build a small red tower out of many wooden blocks"
    rows = [
        {"question": f"What is on number {n}?", "answer": f"Thing {n}.", "image": f"{n}.jpg"}
        for n in range(10)
    ]
    rows += [{"question": f"What is {n} plus one?", "answer": f"It is {n + 1}, dear."} for n in range(12)]
    rows += [{"question": f"{long}{end}", "answer": "Stack them."} for end in (" today.", " tomorrow.")]
    rows += [{"question": "Again?", "answer": "Ask me at me@example.com."}] * 2
    rows += [{"question": "Why is it?", "answer": "As an AI language model, I cannot help with that."}]
    rows += [{"question": "Broken?", "answer": "Yes.", "image": "11.jpg"}]
    rows += [{"question": "What is the exam's only question here?", "answer": "This."}]
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(encoded(photograph(number)))
    (folder / "9.jpg").write_bytes(encoded(photograph(4), quality=40))
    (folder / "11.jpg").write_bytes(b"\xff\xd8 broken")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "denied.jsonl").write_text('{"question": "Whose?", "answer": "Not ours."}\n')
    (folder / "exam.jsonl").write_text(
        '{"question": "What is the exam\'s only question here?", "answer": "This."}\n'
    )
    return folder


def config_of(sources, output):
    listed = (
        {"kind": "parquet", "path": sources / "rows.jsonl", "licence": "mit"},
        {"kind": "parquet", "path": sources / "denied.jsonl", "licence": "cc-by-nc"},
    )
    return CorpusConfig(sources=listed, output=output, benchmarks=(sources / "exam.jsonl",), **RULES)  # type: ignore[arg-type]


def test_one_after_the_other_they_are_the_build(sources, tmp_path):
    config = config_of(sources, tmp_path / "out")
    build_corpus(config)
    items = [
        item for one in read_inputs(config, silent) for item in one.kind.read(one.source.path, one.config)
    ]
    media = {
        one.sha256: content
        for item in items
        for one, content in zip(item.record.media, item.media, strict=True)  # type: ignore[union-attr]
    }
    table = records_to_table([item.record for item in items])  # type: ignore[union-attr]
    rules = RULES | {"benchmarks": [str(sources / "exam.jsonl")]}
    dropped, reports = [], []
    for name in ALL_STAGES:
        result = apply_stage(name, table, media, **rules)
        assert len(result.kept) + len(result.dropped) == len(table)
        table = result.kept
        dropped += result.dropped.to_pylist()
        reports.append((name, result.report.inputs, dict(result.report.dropped)))
    assert table.equals(pq.read_table(tmp_path / "out/records.parquet"))
    built = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    by_row = {row["row"]: row for row in built}
    assert {row["row"]: row for row in dropped} == by_row
    stages = pq.read_table(tmp_path / "out/stages.parquet").to_pylist()
    # A build without a sentence encoder leaves that stage out; here it has nothing to do.
    reports.remove(("near_duplicate_meaning", reports[9][1], {}))
    assert reports == [(one["stage"], one["inputs"], dict(one["reasons"])) for one in stages[1:]]
    silent_ones = {"normalise", "language", "mask", "split", "near_duplicate_meaning"}
    assert {name for name, _, reasons in reports if reasons} == set(ALL_STAGES) - silent_ones


def test_the_order_is_the_build_s():
    assert ALL_STAGES[: len(STAGES)] == tuple(STAGES)


@pytest.mark.parametrize("name", ALL_STAGES)
def test_an_empty_table_stays_empty(name):
    empty = records_to_table([])
    result = apply_stage(name, empty)
    assert len(result.kept) == len(result.dropped) == result.report.inputs == 0
    assert result.kept.schema.equals(empty.schema)


def test_mistakes_are_named(sources, tmp_path):
    build_corpus(config_of(sources, tmp_path / "out"))
    table = pq.read_table(tmp_path / "out/records.parquet")
    with pytest.raises(UnknownNameError, match=r"stage 'qualty' not found; there are: .*quality"):
        apply_stage("qualty", table)
    with pytest.raises(ConfigError, match="quality"):
        apply_stage("quality", table, quality={"skipp": []})
    with pytest.raises(DatasetError, match="no bytes for image"):
        apply_stage("validate", table)
    with pytest.raises(DatasetError, match="is missing or wrong"):
        apply_stage("mask", pa.table({"id": ["x"]}))
