"""The Parquet form: what `datasets` makes of it, that it is the corpus, and that it comes and goes with the setting."""

import hashlib
import io
import json
import re
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from blm.curate.build_check import check_build
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation
from blm.curate.corpus.parquet_form import ParquetForm, parquet_row
from blm.schemas.corpus import CorpusRecord, Media, Message, Part, table_to_records
from blm.schemas.progress import silent
from tests.curate.corpus.test_build import content_of


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vqa")
    Image.effect_noise((40, 30), 50).save(folder / "a.jpg")
    Image.effect_noise((30, 40), 50).save(folder / "b.png")
    content = []
    for number in range(36):
        images = [[], ["a.jpg"], ["a.jpg", "b.png"]][number % 3]
        turns = [
            {"from": "human", "value": "<image>" * len(images) + f"Is {number} < 3?"},
            {"from": "gpt", "value": "Yes."},
        ]
        content.append({"image": images, "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(content))
    return folder / "rows.json"


def built(rows, output, **changes):
    config = {"sources": (f"llava:{rows}",), "output": output, "parquet": True, **changes}
    return build_corpus(CorpusConfig(**config))


@pytest.fixture(scope="module")
def corpus(rows, tmp_path_factory):
    output = tmp_path_factory.mktemp("form") / "out"
    built(rows, output)
    return output


def read_form(folder):
    files = sorted((folder / "parquet").iterdir())
    return {row["id"]: (file.name, row) for file in files for row in pq.read_table(file).to_pylist()}


def test_it_holds_every_record_with_its_images_in_the_order_shown(corpus):
    records = table_to_records(pq.read_table(corpus / "records.parquet"))
    form = read_form(corpus)
    assert form.keys() == {record.id for record in records}
    assert len(records) == 36
    for record in records:
        file, row = form[record.id]
        assert file.startswith(f"{record.split}-")
        parts = [part for message in record.messages for part in message.content]
        given = [part for message in row["messages"] for part in message["content"]]
        assert [part["type"] for part in given] == [part.kind for part in parts]
        assert [part["text"] or "" for part in given] == [part.text for part in parts]
        digests = [hashlib.sha256(image["bytes"]).hexdigest() for image in row["images"]]
        assert digests == [record.media[part.media].sha256 for part in parts if part.kind == "image"]


@pytest.mark.slow
def test_datasets_decodes_it_by_split(corpus, tmp_path):
    from datasets import Features, load_dataset

    found: Any = load_dataset(str(corpus), cache_dir=str(tmp_path))
    table = pq.read_table(corpus / "records.parquet")
    assert {split: len(rows) for split, rows in found.items()} == {
        split: count
        for split in ("train", "val", "test")
        if (count := table["split"].to_pylist().count(split))
    }
    for row in found["train"]:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        shown = [part for part in row["messages"][0]["content"] if part["type"] == "image"]
        sizes = [image.size for image in row["images"]]
        assert sizes == [(40, 30), (30, 40)][: len(shown)]
    count = 0
    for kind in ("text", "jpg", "jpg-png"):
        tars = {"train": str(corpus / f"train-{kind}-[0-9]*.tar")}
        shards: Any = load_dataset("webdataset", data_files=tars, cache_dir=str(tmp_path / "three"))
        count += len(shards["train"])
    assert count == len(found["train"])
    files = {"train": str(corpus / "parquet/train-*.parquet")}
    by_path = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "two"))
    assert isinstance(by_path.features, Features)
    assert by_path.features == found["train"].features


def test_the_same_inputs_give_the_same_bytes_and_files_no_larger_than_asked(rows, corpus, tmp_path):
    built(rows, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(corpus)
    built(rows, tmp_path / "small", shard_bytes=10_240)
    small = read_form(tmp_path / "small")
    assert {name: row for name, (_, row) in small.items()} == {
        name: row for name, (_, row) in read_form(corpus).items()
    }
    assert len({file for file, _ in small.values()}) > 3
    for file in (tmp_path / "small/parquet").iterdir():
        images = sum(
            len(image["bytes"]) for row in pq.read_table(file).to_pylist() for image in row["images"]
        )
        assert images <= 10_240


def test_blm_reads_it_back_as_a_source(corpus, tmp_path):
    built(corpus / "parquet", tmp_path / "back", sources=(f"datasets:{corpus / 'parquet'}",))
    one, other = (
        {record_key(row) for _, row in read_form(folder).values()} for folder in (corpus, tmp_path / "back")
    )
    assert one == other


def record_key(row):
    return json.dumps([row["messages"], [image["path"] for image in row["images"]]])


def test_it_goes_when_it_is_no_longer_wanted_and_is_made_again_when_it_is_lost(rows, tmp_path):
    output = tmp_path / "out"
    built(rows, output, shard_bytes=10_240)
    whole = content_of(output)
    (output / "parquet/notes.txt").write_text("mine")
    built(rows, output, parquet=False, overwrite=True)
    assert [path.name for path in (output / "parquet").iterdir()] == ["notes.txt"]
    assert "parquet/" not in (output / "README.md").read_text()
    (output / "parquet/notes.txt").unlink()
    built(rows, output, shard_bytes=10_240, overwrite=True)
    assert content_of(output) == whole
    sorted((output / "parquet").iterdir())[0].unlink()
    _, _, (problem,) = check_build(output, True, silent)
    assert re.search(r"parquet/ holds \d+ of 36 samples", problem)
    built(rows, output, shard_bytes=10_240)
    assert content_of(output) == whole


def picture():
    stream = io.BytesIO()
    Image.new("RGB", (20, 20)).save(stream, "PNG")
    return stream.getvalue()


def test_an_image_shown_twice_is_there_twice(tmp_path):
    content = picture()
    media = (Media("image", hashlib.sha256(content).hexdigest(), 20, 20, extension="png"),)
    parts = (Part("image", media=0), Part("text", "and"), Part("image", media=0))
    messages = (Message("user", parts), Message("assistant", (Part("text", "The same."),)))
    record = CorpusRecord("r-0", messages, media, "s", "mit", "digital", "general")
    row = parquet_row(Conversation(record, (content,)))
    assert [image["bytes"] for image in row["images"]] == [content, content]
    form = ParquetForm(tmp_path / "form", "train", 1)
    form.close()
    assert not (tmp_path / "form").exists(), "a split without conversations has no file"
