"""Every kind of source on a small hand-made example of its form: what is said, what is shown, what is dropped."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig, SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources import SOURCE_KINDS
from blm.schemas.errors import ConfigError, DatasetError

CONFIG = SourceConfig(name="s", licence="MIT", video_frames=3)


def picture(colour="red", size=(40, 30), form="JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()


def film(path: Path, frames=9) -> Path:
    """Each frame is 20 grey levels lighter than the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            image = np.full((48, 64, 3), 20 + 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    return path


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(kind: str, path: Path, **changes) -> list[Any]:
    return list(SOURCE_KINDS[kind].read(path, CONFIG.model_copy(update=changes)))


def files(kind: str, path: Path, **changes) -> list[Path]:
    return list(SOURCE_KINDS[kind].files(path, CONFIG.model_copy(update=changes)))


def said(item) -> list[str]:
    assert isinstance(item, Conversation), item
    return [
        "".join(part.text or f"<{part.media}>" for part in message.content)
        for message in item.record.messages
    ]


def dropped(items) -> list[tuple[str, str, str]]:
    return [(one.row, one.reason, one.field) for one in items if isinstance(one, Drop)]


def test_cosmos_reason1(tmp_path):
    film(tmp_path / "clips/a.mp4")
    options = {"A": "close the gripper", "B": "lift"}
    good = {
        "video": "clips/a.mp4",
        "qa_pairs": {"question": "What next?", "index2ans": options, "answer": "B"},
    }
    several = good | {"qa_pairs": [good["qa_pairs"], {**good["qa_pairs"], "reasoning": "It holds it."}]}
    bad = [
        good | {"video": "clips/none.mp4"},
        good | {"video": "../a.mp4"},
        good | {"qa_pairs": {**good["qa_pairs"], "answer": "C"}},
        good | {"qa_pairs": {**good["qa_pairs"], "index2ans": {"A": "one"}}},
        good | {"qa_pairs": {**good["qa_pairs"], "question": 3}},
        {"qa_pairs": good["qa_pairs"]},
    ]
    path = put(tmp_path / "robovqa_qa_pairs.json", [good, several, *bad])
    items = read("cosmos-reason1", path)
    assert said(items[0]) == [
        "<0><1><2>What next?\nA. close the gripper\nB. lift\nAnswer with the letter of the right option.",
        "B",
    ]
    levels = [np.asarray(Image.open(io.BytesIO(one))).mean() for one in items[0].media]
    assert levels == pytest.approx([20, 100, 180], abs=6)
    assert said(items[2])[1] == "It holds it.\nB"
    assert [one.record.id for one in items[:3]] == ["s-00000000", "s-00000001-00", "s-00000001-01"]
    assert dropped(items) == [
        ("2", "missing_media", "video"),
        ("3", "outside_root", "video"),
        ("4", "bad_choices", "qa_pairs.answer"),
        ("5", "bad_choices", "qa_pairs.index2ans"),
        ("6", "bad_text", "qa_pairs.question"),
        ("7", "media_mismatch", "video"),
    ]
    assert files("cosmos-reason1", path) == [path, (tmp_path / "clips/a.mp4").resolve()]


def test_robovqa(tmp_path):
    film(tmp_path / "videos/17.mp4")
    text = (
        "<task:affordance:discriminative:discrete:True>\nput the can away Q: possible right now? "
        "<PRED>A: <PRED:ANSWER><PRED:DISCRETE><PRED:BINARY>yes</PRED:BINARY></PRED:DISCRETE></PRED:ANSWER>\n</PRED>"
        "<task:planning:freeform>\ncurrent goal is: tidy up. Q: immediate next step? <PRED>A: pick the can\n</PRED>"
        "<task:past_description:freeform> Q: what happened? <PRED>A: the drawer was opened</PRED>"
    )
    rows = [
        {"uid": 17, "text": text},
        {"uid": 17, "text": "no task"},
        {"uid": 17, "text": "<task:x> Q: what?"},
        {"uid": 17},
        {"text": text},
    ]
    path = tmp_path / "rows.jsonl"
    put(path, "\n".join(map(json.dumps, rows)))
    items = read("robovqa", path)
    assert [said(one) for one in items[:3]] == [
        ["<0><1><2>put the can away possible right now?", "yes"],
        ["<0><1><2>current goal is: tidy up. immediate next step?", "pick the can"],
        ["<0><1><2>what happened?", "the drawer was opened"],
    ]
    assert [one.record.task_family for one in items[:3]] == ["affordance", "planning", "temporal"]
    assert dropped(items) == [
        ("1", "bad_text", "text"),
        ("2", "bad_text", "text"),
        ("3", "bad_text", "text"),
        ("4", "media_mismatch", "video"),
    ]


def test_egothink(tmp_path):
    put(tmp_path / "Planning/assistance/images/a.jpg", picture())
    put(tmp_path / "Object/affordance/images/b.jpg", picture("blue"))
    row = {"image_path": ["a.jpg"], "question": "How do I open it?", "answer": "Turn the lid."}
    put(
        tmp_path / "Planning/assistance/annotations.json",
        [row, row | {"image_path": ["/etc/x.jpg"]}, row | {"answer": ""}],
    )
    put(tmp_path / "Object/affordance/annotations.json", [row | {"image_path": ["b.jpg"]}])
    items = read("egothink", tmp_path)
    assert [one.record.task_family for one in items if isinstance(one, Conversation)] == [
        "affordance",
        "planning",
    ]
    assert said(items[1]) == ["<0>How do I open it?", "Turn the lid."]
    assert items[1].media == (picture(),)
    assert dropped(items) == [
        ("Planning/assistance/annotations.json:1", "outside_root", "image"),
        ("Planning/assistance/annotations.json:2", "bad_text", "answer"),
    ]
    assert len(files("egothink", tmp_path)) == 4
    assert len({one.record.id for one in items if isinstance(one, Conversation)}) == 2


def test_sharerobot(tmp_path):
    put(tmp_path / "a.jpg", picture())
    size = {"meta_data": {"original_dataset": "bridge", "original_width": 640, "original_height": 480}}
    chat = {
        "id": "x",
        "task": "Future_Prediction_Task",
        "selected_step": 3,
        "conversations": [
            {"from": "human", "value": "<image 0-25> After <move the banana>, what is next?"},
            {"from": "gpt", "value": "<place the banana into the mug>"},
        ],
        "image": ["a.jpg"],
    }
    box = {
        "id": "a.jpg",
        **size,
        "instruction": "take the fork",
        "affordance": {"x": 320.0, "y": 120.0, "width": 32.0, "height": 48.0},
    }
    path_row = {
        "id": "a.jpg",
        **size,
        "instruction": "reach for it",
        "points": [[64.0, 48.0], [128.0, 96.0]],
    }
    bad = [
        box | {"affordance": {"x": 630, "y": 1, "width": 32, "height": 4}},
        box | {"affordance": {"x": 1, "y": 1, "width": 0, "height": 4}},
        box | {"affordance": {"x": "1", "y": 1, "width": 2, "height": 4}},
        box | {"meta_data": {"original_width": 0, "original_height": 1}},
        path_row | {"points": [[1, 2], [float("nan"), 3]]},
        {"id": "a.jpg"},
    ]
    items = read("sharerobot", put(tmp_path / "rows.json", [chat, box, path_row, *bad]))
    assert said(items[0]) == ["<0>After move the banana, what is next?", "place the banana into the mug"]
    assert said(items[1])[1] == "(500, 250, 550, 350)"
    assert said(items[2])[1] == "(100, 100), (200, 200)"
    assert [one.record.task_family for one in items[:3]] == ["temporal", "affordance", "affordance"]
    assert [one[1:] for one in dropped(items)] == [
        ("bad_box", "affordance"),
        ("bad_box", "affordance"),
        ("bad_row", "affordance"),
        ("bad_row", "meta_data"),
        ("bad_row", "points[1]"),
        ("bad_row", ""),
    ]


CHAT = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]


def test_parquet_and_what_is_read_like_it(tmp_path):
    image = {"bytes": picture(), "path": "a.jpg"}
    rows = [
        {"question": "What colour?", "answer": "Red.", "image": image, "choices": None, "messages": None},
        {"question": "Which?", "answer": "1", "image": None, "choices": ["one", "1"], "messages": None},
        {"question": None, "answer": None, "image": None, "choices": None, "messages": CHAT},
        {"question": "What?", "answer": None, "image": None, "choices": None, "messages": None},
        {"question": "Which?", "answer": "3", "image": None, "choices": ["one", "1"], "messages": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    items = read("parquet", tmp_path / "rows.parquet")
    assert said(items[0]) == ["<0>What colour?", "Red."]
    assert items[0].media == (picture(),)
    assert said(items[1])[1] == "B"
    assert said(items[2]) == ["Hello?", "Yes."]
    assert dropped(items) == [("3", "bad_text", "answer"), ("4", "bad_choices", "answer")]
    named = {"columns": {"question": "ask", "answer": "say"}}
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["ask", "say"], ["Where?", "There,\n\nin two lines."], ["", "x"]])
    items = read("parquet", tmp_path / "rows.csv", options=named)
    assert said(items[0]) == ["Where?", "There,\n\nin two lines."]
    assert dropped(items) == [("1", "bad_text", "ask")]
    with pytest.raises(ConfigError, match=r"options\.columns.*Allowed: question, answer"):
        read("parquet", tmp_path / "rows.csv", options={"columns": {"frage": "x"}})


def test_datasets_saved_to_disk_and_folders_of_files(tmp_path):
    from datasets import Dataset, DatasetDict, Features, Value
    from datasets import Image as ImageFeature

    put(tmp_path / "red.jpg", picture())
    columns = {"question": ["a?", "b?"], "answer": ["A", "B"], "image": [str(tmp_path / "red.jpg"), None]}
    features = Features({"question": Value("string"), "answer": Value("string"), "image": ImageFeature()})
    one = Dataset.from_dict(columns, features=features)
    one.save_to_disk(tmp_path / "one")
    DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(tmp_path / "both")
    items = read("datasets", tmp_path / "one")
    assert [said(item) for item in items] == [["<0>a?", "A"], ["b?", "B"]]
    assert items[0].media == (picture(),)
    assert len(read("datasets", tmp_path / "both")) == 3
    assert [said(item) for item in read("datasets", tmp_path / "both", options={"split": "test"})] == [
        ["b?", "B"]
    ]
    with pytest.raises(DatasetError, match=r"no split 'val'.*It has: train, test"):
        read("datasets", tmp_path / "both", options={"split": "val"})
    put(tmp_path / "plain/train.jsonl", json.dumps({"question": "c?", "answer": "C"}))
    assert said(read("datasets", tmp_path / "plain")[0]) == ["c?", "C"]
    with pytest.raises(ConfigError, match=r"options\.revision"):
        read("datasets", Path("hub"), options={"hub": "owner/name"})


def write_tar(path: Path, members: list[tuple[str, bytes | tarfile.TarInfo]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_webdataset(tmp_path):
    chat = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]}
    link = tarfile.TarInfo("4.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("0.jpg", picture()),
            ("0.txt", b"A red square."),
            ("d/1.json", json.dumps(chat).encode()),
            ("d/1.1.png", picture("blue", form="PNG")),
            ("d/1.0.jpg", picture()),
            ("2.jpg", picture()),
            ("3.pkl", b"cos\nsystem\n"),
            ("3.jpg", picture()),
            ("4.jpg", link),
            ("../5.jpg", picture()),
            ("6.json", b"{oops"),
        ],
    )
    items = read("webdataset", path)
    assert said(items[0])[1] == "A red square."
    assert said(items[1]) == ["<0><1>What?", "That."]
    assert items[1].media == (picture(), picture("blue", form="PNG"))
    assert [one[1] for one in dropped(items)] == [
        "no_text",
        "pickle_refused",
        "unsafe_member",
        "unsafe_member",
        "bad_json",
    ]
    path.write_bytes(path.read_bytes()[:1700])
    assert [one[1] for one in dropped(read("webdataset", path))][-1] == "bad_tar"


@pytest.mark.parametrize(("kind", "path"), [("webdataset", "out"), ("parquet", "out/parquet")])
def test_a_corpus_that_was_built_is_a_source(kind, path, tmp_path):
    put(tmp_path / "in/a.jpg", picture())
    chat = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]}
    rows = put(tmp_path / "in/rows.json", [chat, chat | {"image": "a.jpg"}])
    source = {
        "kind": "llava",
        "path": rows,
        "licence": "cc-by-4.0",
        "space": "physical",
        "task_family": "planning",
    }
    build_corpus(CorpusConfig(sources=(source,), output=tmp_path / "out", parquet=True))  # type: ignore[arg-type]
    items = read(kind, tmp_path / path)
    assert sorted(said(one)[0] for one in items) == ["<0>What?", "What?"]
    for item in items:
        record = item.record
        assert (record.licence, record.space, record.task_family) == ("cc-by-4.0", "physical", "planning")
    origin = json.loads(items[0].record.provenance)
    assert origin["from"] == "rows_json"
    assert json.loads(origin["earlier"])["file"] == "rows.json"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"licence": "mit | x"}, "licence"),
        ({"licence": 3}, "licence"),
        ({"space": "outer"}, "space"),
        ({"task_family": "spacial"}, "task_family"),
        ({"licence": "unknown"}, None),
    ],
)
def test_what_a_record_says_of_itself_is_checked(changes, field, tmp_path):
    chat = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]}
    own = {"id": "a-0", "source": "a", "licence": "mit", "space": "digital", "task_family": "general"}
    rows = put(tmp_path / "rows.json", [chat | own | {"provenance": "{}"} | changes])
    (item,) = read("parquet", rows)
    if field is None:
        assert item.record.licence == read("parquet", put(tmp_path / "plain.json", [chat]))[0].record.licence
    else:
        assert (item.reason, item.field) == ("bad_row", field)


@pytest.mark.parametrize("form", ["jsonl", "csv", "beside"])
def test_image_folders(tmp_path, form):
    put(tmp_path / "a.jpg", picture())
    put(tmp_path / "sub/b.png", picture("blue", form="PNG"))
    captions = {"a.jpg": "A red square.", "sub/b.png": ""}
    if form == "jsonl":
        rows = [json.dumps({"file_name": name, "caption": text}) for name, text in captions.items()]
        put(tmp_path / "metadata.jsonl", "\n".join(rows))
    elif form == "csv":
        put(tmp_path / "metadata.csv", "file_name,text\na.jpg,A red square.\nsub/b.png,\n")
    else:
        put(tmp_path / "a.txt", captions["a.jpg"])
    items = read("images", tmp_path)
    assert said(items[0])[1] == "A red square."
    assert items[0].media == (picture(),)
    assert [one[1] for one in dropped(items)] == ["no_caption" if form == "beside" else "bad_text"]
    assert tmp_path / "a.jpg" in files("images", tmp_path)


@pytest.mark.parametrize("kind", sorted(set(SOURCE_KINDS) - {"lerobot"}))
def test_an_empty_folder_is_an_error_that_says_what_belongs_there(kind, tmp_path):
    with pytest.raises(DatasetError, match=str(tmp_path)):
        read(kind, tmp_path)
