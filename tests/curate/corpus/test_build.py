import hashlib
import io
import json
import sys
import tarfile
from collections import Counter
from importlib.metadata import EntryPoint
from itertools import groupby, pairwise
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from PIL import Image

from blm.curate.corpus import build
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig, read_corpus_config
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources import source_kind
from blm.curate.corpus.stages import STAGES
from blm.curate.corpus.writer import media_signature
from blm.curate.episodes.content import CONTENT_DIGEST
from blm.curate.shards import read_shard_table
from blm.schemas.corpus import CORPUS_SCHEMA, CorpusRecord, Media, Message, Part, table_to_records
from blm.schemas.errors import ConfigError, DatasetError, OutputExistsError, UnknownNameError
from blm.schemas.manifest import read_manifest
from tests.factories import as_of_version_1


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Thirty good rows about three images of two formats and none, one duplicate, two bad rows."""
    folder = tmp_path / "vqa"
    folder.mkdir()
    Image.effect_noise((40, 30), 50).save(folder / "a.jpg")
    Image.effect_noise((30, 40), 50).save(folder / "b.png")
    (folder / "broken.jpg").write_bytes(b"broken")

    def row(images, question):
        tags = "<image>" * len(images)
        turns = [{"from": "human", "value": tags + question}, {"from": "gpt", "value": "Yes."}]
        return {"image": images, "conversations": turns}

    content = [
        row(images, f"Is {i} < 3?") for i in range(10) for images in ([], ["a.jpg"], ["a.jpg", "b.png"])
    ]
    content += [row(["a.jpg"], "Is 0 < 3?"), row(["broken.jpg"], "?"), row(["../x.jpg"], "?")]
    (folder / "rows.json").write_text(json.dumps(content))
    return folder / "rows.json"


def config_for(*sources, output, **changes) -> CorpusConfig:
    return CorpusConfig(sources=tuple(map(str, sources)), output=output, **changes)  # type: ignore[arg-type]


def content_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_counts_are_conserved_and_every_drop_is_named(rows, tmp_path):
    output = tmp_path / "out"
    summary = build_corpus(config_for(f"llava:{rows}", output=output, licence="cc0-1.0"))
    manifest = read_manifest(output, "stage1-corpus")
    assert summary.counts == manifest.counts
    assert (manifest.counts.inputs, manifest.counts.kept) == (33, 30)
    assert manifest.counts.dropped == {"bad_media": 1, "duplicate": 1, "outside_root": 1}
    assert sum(manifest.splits.values()) == sum(manifest.breakdown.values()) == 30
    records = pq.read_table(output / "records.parquet")
    assert records.schema.equals(CORPUS_SCHEMA)
    assert Counter(records["split"].to_pylist()) == Counter({k: v for k, v in manifest.splits.items() if v})
    drops = pq.read_table(output / "dropped.parquet").to_pylist()
    assert [(d["source"], d["row"], d["stage"], d["reason"]) for d in drops] == [
        ("rows_json", "rows_json-00000030", "dedup", "duplicate"),
        ("rows_json", "rows_json-00000031", "validate", "bad_media"),
        ("rows_json", "32", "read", "outside_root"),
    ]
    card = (output / "README.md").read_text()
    assert "30 training conversations (33 read, 3 dropped)" in card
    assert "cc0-1.0" in card


def test_stages_say_what_came_in_what_stayed_and_why(rows, tmp_path):
    output = tmp_path / "out"
    (tmp_path / "exam.txt").write_text("Is 7 < 3?")
    mixture = {"conversations": 20}
    config = config_for(f"llava:{rows}", output=output, benchmarks=(tmp_path / "exam.txt",), mixture=mixture)
    summary = build_corpus(config)
    stages = pq.read_table(output / "stages.parquet").to_pylist()
    names = ["read", *STAGES, "near_duplicate_text", "decontaminate", "mixture"]
    assert [(one["order"], one["stage"]) for one in stages] == list(enumerate(names))
    for one, following in pairwise(stages):
        assert one["kept"] == following["inputs"]
    for one in stages:
        assert one["inputs"] == one["kept"] + one["dropped"]
        assert one["dropped"] == sum(count for _, count in one["reasons"])
    assert (stages[0]["inputs"], stages[-1]["kept"]) == (summary.counts.inputs, summary.counts.kept)
    dropped = Counter(
        (one["stage"], one["reason"]) for one in pq.read_table(output / "dropped.parquet").to_pylist()
    )
    assert dropped == {(one["stage"], reason): count for one in stages for reason, count in one["reasons"]}
    assert dropped["mixture", "balance"] == 10
    partners = {
        one["row"]: one["partner"]
        for one in pq.read_table(output / "dropped.parquet").to_pylist()
        if one["partner"]
    }
    assert partners == {"rows_json-00000030": "rows_json-00000001"}


def samples_by_tarfile(path: Path):
    """Key, then ending → bytes of each sample, by webdataset's rule: the key is all before the first dot."""
    with tarfile.open(path) as tar:
        members = [(one.name.partition("."), tar.extractfile(one)) for one in tar.getmembers()]
        for key, group in groupby(members, key=lambda member: member[0][0]):
            yield key, {name[2]: stream.read() for name, stream in group if stream}


def samples_by_webdataset(path: Path):
    from webdataset import WebDataset  # pyright: ignore[reportAttributeAccessIssue]

    for sample in WebDataset(str(path), shardshuffle=False):
        yield sample["__key__"], sample


@pytest.mark.parametrize(
    "samples", [samples_by_tarfile, pytest.param(samples_by_webdataset, marks=pytest.mark.slow)]
)
def test_shards_hold_the_records_and_their_media(samples, corpus, rows, tmp_path):
    output = tmp_path / "out"
    build_corpus(config_for(f"llava:{rows}", output=output, shard_bytes=20_000))
    assert len(read_shard_table(output)) > 3
    for folder in (output, corpus):
        expected = {one.id: one for one in table_to_records(pq.read_table(folder / "records.parquet"))}
        for shard in read_shard_table(folder):
            signatures = set()
            for key, sample in samples(folder / shard.name):
                record = CorpusRecord.from_row(json.loads(sample["json"]))
                assert record == expected.pop(key)
                assert record.split == shard.split
                signatures.add(media_signature(record))
                for number, media in enumerate(record.media):
                    content = sample[f"{number}.{media.extension}"]
                    assert hashlib.sha256(content).hexdigest() == media.sha256
                    assert Image.open(io.BytesIO(content)).size == (media.width, media.height)
            assert len(signatures) == 1
        assert not expected


@pytest.mark.slow
def test_datasets_opens_each_configuration_of_the_card(rows, tmp_path):
    from datasets import load_dataset

    output = tmp_path / "out"
    summary = build_corpus(config_for(f"llava:{rows}", output=output))
    found = 0
    for name in ("text", "jpg", "jpg-png"):
        for split in load_dataset(str(output), name, cache_dir=str(tmp_path / "cache")).values():
            found += len(split)
    assert found == summary.counts.kept


def test_the_index_points_at_each_member(rows, tmp_path):
    output = tmp_path / "out"
    build_corpus(config_for(f"llava:{rows}", output=output))
    for member in pq.read_table(output / "index.parquet").to_pylist():
        with (output / member["shard"]).open("rb") as stream:
            stream.seek(member["offset"])
            content = stream.read(member["size"])
        if member["suffix"] == "json":
            assert json.loads(content)["id"] == member["key"]
        else:
            Image.open(io.BytesIO(content)).load()


def test_questions_about_one_episode_stay_in_one_split(corpus):
    splits = {}
    for record in pq.read_table(corpus / "records.parquet").to_pylist():
        origin = json.loads(record["provenance"])
        splits.setdefault((record["source"], origin["episode"]), set()).add(record["split"])
    assert len(splits) == 12
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.usefixtures("drawn_charts")
def test_the_same_inputs_in_any_order_give_the_same_bytes(rows, stacking, tmp_path):
    sources = [f"llava:{rows}", f"lerobot:{stacking}"]
    one = build_corpus(config_for(*sources, output=tmp_path / "one", questions_per_episode=5))
    build_corpus(config_for(*reversed(sources), output=tmp_path / "two", questions_per_episode=5))
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")
    again = build_corpus(config_for(*sources, output=tmp_path / "one", questions_per_episode=5))
    assert (one.reused, again.reused) == (0, again.shards)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_a_corpus_whose_splits_follow_an_older_digest_is_not_brought_up_to_date(
    rows, stacking, tmp_path, monkeypatch
):
    of_texts = config_for(f"llava:{rows}", output=tmp_path / "texts")
    of_episodes = config_for(f"lerobot:{stacking}", output=tmp_path / "episodes", questions_per_episode=2)
    monkeypatch.setattr(build, "MANIFEST_VERSION", 1)
    for wanted in (of_texts, of_episodes):
        build_corpus(wanted)
        as_of_version_1(wanted.output)
    monkeypatch.undo()
    assert build_corpus(of_texts).shards > 0
    assert read_manifest(of_texts.output).manifest_version == 2
    with pytest.raises(OutputExistsError, match=r"by an older blm.*may become test episodes.*--overwrite"):
        build_corpus(of_episodes)


def test_what_was_read_of_recordings_is_read_again_where_another_digest_tells_episodes_apart():
    assert CONTENT_DIGEST in source_kind("lerobot").code


def test_an_interrupted_build_is_finished_to_the_same_bytes(rows, tmp_path, monkeypatch):
    changes = {"shard_bytes": 10_240}
    build_corpus(config_for(f"llava:{rows}", output=tmp_path / "whole", **changes))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "dropped_table", stop)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(config_for(f"llava:{rows}", output=tmp_path / "cut", **changes))
    assert not (tmp_path / "cut/manifest.json").exists()
    monkeypatch.undo()
    summary = build_corpus(config_for(f"llava:{rows}", output=tmp_path / "cut", **changes))
    assert summary.reused == summary.shards > 3
    assert content_of(tmp_path / "cut") == content_of(tmp_path / "whole")


def test_a_changed_image_is_another_build_and_is_not_overwritten_unasked(rows, tmp_path):
    output = tmp_path / "out"
    build_corpus(config_for(f"llava:{rows}", output=output))
    (output / "notes.txt").write_text("mine")
    before = content_of(output)
    Image.effect_noise((40, 30), 90).save(rows.parent / "a.jpg")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        build_corpus(config_for(f"llava:{rows}", output=output))
    assert content_of(output) == before
    build_corpus(config_for(f"llava:{rows}", output=output, overwrite=True))
    assert (output / "notes.txt").read_text() == "mine"
    assert content_of(output)["records.parquet"] != before["records.parquet"]


def test_nothing_left_is_an_error_that_says_why_and_leaves_no_trace(rows, tmp_path):
    (rows.parent / "bad.json").write_text(json.dumps([{"image": "none.jpg", "conversations": 3}, 4]))
    with pytest.raises(
        DatasetError, match=r"no conversation is left of 2 \(dropped: bad_row 2\).*bad\.json row 0"
    ):
        build_corpus(config_for(f"llava:{rows.parent / 'bad.json'}", output=tmp_path / "out"))
    build_corpus(config_for(f"llava:{rows}", output=tmp_path / "out"))


def test_mistakes_are_named(rows, tmp_path):
    with pytest.raises(
        UnknownNameError, match=r"corpus source 'lava' not found; there are: .*lerobot, llava"
    ):
        build_corpus(config_for(f"lava:{rows}", output=tmp_path / "out"))
    with pytest.raises(DatasetError, match=r"none\.json does not exist"):
        build_corpus(config_for("llava:none.json", output=tmp_path / "out"))
    with pytest.raises(ConfigError, match="listed twice"):
        build_corpus(config_for(f"llava:{rows}", f"llava:{rows}", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_kind_from_another_package(tmp_path, monkeypatch):
    source = tmp_path / "lines.txt"
    source.write_text("one\n\nthree\n")
    module = ModuleType("lines_package")
    module.read_lines = read_lines  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lines_package", module)
    entry = EntryPoint("lines", "lines_package:read_lines", "blm.corpus_sources")
    monkeypatch.setattr(
        "blm.curate.corpus.sources.entry_points", lambda group: [entry] if group == entry.group else []
    )
    summary = build_corpus(config_for(f"lines:{source}", output=tmp_path / "out"))
    assert (summary.counts.kept, summary.counts.dropped) == (2, {"empty_line": 1})


def read_lines(path, config):
    for number, line in enumerate(path.read_text().splitlines()):
        if not line:
            yield Drop(config.name, str(number), "empty_line")
            continue
        messages = (
            Message("user", (Part("text", f"Line {number}?"),)),
            Message("assistant", (Part("text", line),)),
        )
        yield Conversation(
            CorpusRecord(f"l{number}", messages, (), config.name, config.licence, "digital", "general")
        )


def test_the_configuration_file(tmp_path):
    path = tmp_path / "corpus.yaml"
    path.write_text(
        "sources:\n  - lerobot:d\n  - {kind: llava, path: v.json, licence: mit, task_family: spatial}\n"
        "questions_per_episode: 7\nfractions: {train: 0.8, val: 0.1, test: 0.1}\n"
    )
    config = read_corpus_config(path, output=tmp_path / "out", seed=3)
    assert [(one.kind, str(one.path)) for one in config.sources] == [("lerobot", "d"), ("llava", "v.json")]
    assert config.for_source(config.sources[0], "d").licence == "unknown"
    given = config.for_source(config.sources[1], "v")
    assert (given.licence, given.task_family, given.seed) == ("mit", "spatial", 3)
    path.write_text("sources: [pushes]\noutput: x\n")
    with pytest.raises(ConfigError, match="a source is KIND:PATH"):
        read_corpus_config(path)


def test_media_are_named_by_runs():
    def record(*extensions):
        media = tuple(Media("image", "0" * 64, 1, 1, extension=one) for one in extensions)
        return CorpusRecord("r", (), media, "s", "", "digital", "general")

    assert media_signature(record()) == "text"
    assert media_signature(record("jpg")) == "jpg"
    assert media_signature(record("jpg", "jpg", "png", "jpg")) == "jpg2-png-jpg"
