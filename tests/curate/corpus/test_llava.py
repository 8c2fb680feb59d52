import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.llava import llava_files, read_llava
from blm.schemas.corpus import Part
from blm.schemas.errors import DatasetError

CONFIG = SourceConfig(name="vqa", licence="MIT")
TURNS = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cup."}]


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("a.jpg", "red"), ("sub/b.png", "blue")):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour).save(path)
    (tmp_path / "secret.jpg").write_bytes(b"not yours")
    (tmp_path / "root/link.jpg").symlink_to(tmp_path / "secret.jpg")
    return tmp_path / "root"


def read(folder, rows, name="rows.json", config=CONFIG) -> list[Any]:
    path = folder / name
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    path.write_text(text, encoding="utf-8")
    return list(read_llava(path, config))


def said(item):
    assert isinstance(item, Conversation), item
    return [(m.role, [part.text or part.media for part in m.content]) for m in item.record.messages]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_both_forms_are_read(folder, name):
    rows = [
        {"id": "x7", "image": "a.jpg", "conversations": TURNS},
        {
            "images": ["a.jpg", "sub/b.png"],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "<image> and <image>: same?"},
                {"role": "assistant", "content": "No <image> tag here."},
            ],
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": "sub/b.png"}, {"type": "text", "text": "?"}],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "!"}]},
            ]
        },
        {"image": "a.jpg", "conversations": [{"from": "human", "value": "No tag"}, TURNS[1]]},
        {"conversations": [{"from": "human", "value": "No image"}, TURNS[1]]},
    ]
    first, second, third, fourth, fifth = read(folder, rows, name)
    assert said(first) == [("user", [0, "\nWhat is it?"]), ("assistant", ["A cup."])]
    assert said(second) == [
        ("system", ["Be brief."]),
        ("user", [0, " and ", 1, ": same?"]),
        ("assistant", ["No <image> tag here."]),
    ]
    assert said(third) == [("user", [0, "?"]), ("assistant", ["!"])]
    assert said(fourth) == [("user", [0, "No tag"]), ("assistant", ["A cup."])]
    assert said(fifth)[0] == ("user", ["No image"])
    assert first.record.id == "vqa-00000000"
    assert json.loads(first.record.provenance) == {"file": name, "row": 0, "id": "x7", "images": ["a.jpg"]}
    assert second.media == ((folder / "a.jpg").read_bytes(), (folder / "sub/b.png").read_bytes())
    assert second.record.messages[1].content[0] == Part("image", media=0)


def turns(**changes):
    return {"image": "a.jpg", "conversations": TURNS} | changes


BAD_ROWS = [
    (turns(image="none.jpg"), "missing_media", "image"),
    (turns(image="../secret.jpg"), "outside_root", "image"),
    (turns(image="sub/../a.jpg"), "outside_root", "image"),
    (turns(image="/etc/hostname"), "outside_root", "image"),
    (turns(image="C:\\a.jpg"), "outside_root", "image"),
    (turns(image="..\\secret.jpg"), "outside_root", "image"),
    (turns(image="https://example.com/a.jpg"), "outside_root", "image"),
    (turns(image="data:image/png;base64,AAAA"), "outside_root", "image"),
    (turns(image="link.jpg"), "outside_root", "image"),
    (turns(image="a\x00.jpg"), "missing_media", "image"),
    (turns(image="\ud800.jpg"), "missing_media", "image"),
    (turns(image="n" * 5000), "missing_media", "image"),
    (turns(image="sub"), "missing_media", "image"),
    (turns(image=[3]), "bad_row", "image[0]"),
    (turns(image=["a.jpg", "a.jpg"]), "media_mismatch", "image"),
    (turns(image=None), "media_mismatch", "image"),
    (turns(video="a.mp4"), "unsupported_media", "video"),
    (turns(conversations=[{"from": "robot", "value": "?"}]), "bad_roles", "conversations[0].from"),
    (turns(conversations=[{"value": "?"}]), "bad_roles", "conversations[0].from"),
    (turns(conversations=[{"from": ["human"], "value": "?"}]), "bad_roles", "conversations[0].from"),
    (turns(conversations=[{"from": "human", "value": 3}]), "bad_text", "conversations[0].value"),
    (turns(conversations=["hello"]), "bad_row", "conversations[0]"),
    (turns(conversations="hello"), "bad_row", "conversations"),
    ({"image": "a.jpg"}, "bad_row", "messages"),
    (["a.jpg"], "bad_row", ""),
    (
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        "unsupported_media",
        "messages[0].content[0]",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "bad_text", "messages[0].content[0]"),
]


@pytest.mark.parametrize(("row", "reason", "field"), BAD_ROWS)
def test_bad_rows_are_dropped_naming_source_row_and_field(folder, row, reason, field):
    good, bad = read(folder, [turns(), row])
    assert isinstance(good, Conversation)
    assert isinstance(bad, Drop)
    assert (bad.source, bad.row, bad.reason, bad.field) == ("vqa", "1", reason, field)
    assert bad.note.startswith(f"rows.json row 1, field '{field}': " if field else "rows.json row 1: ")


def test_a_line_that_is_no_json_costs_that_line_only(folder):
    path = folder / "rows.jsonl"
    good = json.dumps(turns()).encode()
    path.write_bytes(b"\n".join([good, b"{oops", b"", b"\xff\xfe", b"[" * 100_000, good]))
    items = list(read_llava(path, CONFIG))
    assert [getattr(item, "reason", "kept") for item in items] == ["kept", *["bad_json"] * 3, "kept"]


@pytest.mark.parametrize("content", ["{oops", '{"a": 1}', ""])
def test_a_file_that_is_no_list_is_an_error(folder, content):
    (folder / "rows.json").write_text(content)
    with pytest.raises(DatasetError, match=r"rows\.json"):
        list(read_llava(folder / "rows.json", CONFIG))


def test_the_media_root_may_be_elsewhere(folder, tmp_path):
    config = CONFIG.model_copy(update={"media_root": folder / "sub"})
    (tmp_path / "lists").mkdir()
    kept, dropped = read(tmp_path / "lists", [turns(image="b.png"), turns(image="a.jpg")], config=config)
    assert kept.media == ((folder / "sub/b.png").read_bytes(),)
    assert isinstance(dropped, Drop)
    assert dropped.reason == "missing_media"


def test_an_image_above_the_limit_is_not_even_read(folder):
    limits = CONFIG.limits.model_copy(update={"max_media_bytes": 10})
    (dropped,) = read(folder, [turns()], config=CONFIG.model_copy(update={"limits": limits}))
    assert isinstance(dropped, Drop)
    assert dropped.reason == "media_too_large"


def test_the_fingerprint_covers_each_image_once_and_nothing_outside(folder):
    read(folder, [turns(), turns(), turns(image="sub/b.png"), *(row for row, _, _ in BAD_ROWS)])
    files = list(llava_files(folder / "rows.json", CONFIG))
    assert [path.relative_to(folder.resolve()).as_posix() for path in files[1:]] == ["a.jpg", "sub/b.png"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["image", "conversations", "from", "value", "messages", "role", "content", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(st.lists(json_values, max_size=4))
def test_no_row_whatever_it_holds_stops_the_build(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    assert len(read(folder, rows)) == len(rows)
