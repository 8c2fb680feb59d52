import hashlib
import io
import json
import zipfile
from typing import cast

import pytest
from PIL import Image

from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.pipeline import Pipeline
from blm.curate.corpus.stages import STAGES
from blm.schemas.corpus import CorpusRecord, Media, Message, Part, Role


def config(**limits):
    return CorpusConfig(sources=("llava:x.json",), output="out", limits=limits)  # type: ignore[arg-type]


def picture(form="PNG", size=(40, 30), **options):
    stream = io.BytesIO()
    Image.effect_noise(size, 60).save(stream, form, **options)
    return stream.getvalue()


def archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "hidden")
    return stream.getvalue()


def conversation(*turns, media=(), name="r1", group=""):
    turns = turns or (("user", "What?"), ("assistant", "That."))
    shown = tuple(Part("image", media=i) for i in range(len(media)))
    messages = tuple(
        Message(cast(Role, role), (*(shown if index == 0 else ()), Part("text", text)))
        for index, (role, text) in enumerate(turns)
    )
    things = tuple(Media("image", hashlib.sha256(one).hexdigest(), 0, 0, extension="") for one in media)
    record = CorpusRecord(name, messages, things, "s", "MIT", "digital", "general")
    return Conversation(record, tuple(media), group)


def run(*items, **limits):
    pipeline = Pipeline(config(**limits))
    return list(pipeline.run(items)), pipeline


def test_the_declared_order():
    assert list(STAGES) == [
        "licence",
        "validate",
        "normalise",
        "quality",
        "language",
        "mask",
        "dedup",
        "split",
    ]


@pytest.mark.parametrize(("form", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_images_are_measured(form, extension):
    (kept,), _ = run(conversation(media=(picture(form),)))
    (media,) = kept.record.media
    assert (media.width, media.height, media.extension) == (40, 30, extension)


@pytest.mark.parametrize(
    ("media", "limits", "reason"),
    [
        ((b"no picture",), {}, "bad_media"),
        ((b"",), {}, "bad_media"),
        ((picture("JPEG")[:-200],), {}, "bad_media"),
        ((picture("PNG")[:-200],), {}, "bad_media"),
        ((picture("GIF"),), {}, "unsupported_media"),
        (
            (picture("WEBP", save_all=True, append_images=[Image.new("L", (40, 30))]),),
            {},
            "unsupported_media",
        ),
        ((picture(size=(40, 8)),), {}, "media_too_small"),
        ((picture(),), {"max_side": 39}, "media_too_large"),
        ((picture(),), {"max_media_bytes": 100}, "media_too_large"),
        ((picture(), picture()), {"max_media": 1}, "too_many_media"),
        ((picture(),), {"max_pixels": 1199}, "media_too_large"),
        ((picture("BMP"),), {}, "unsupported_media"),
        (
            (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"/>',),
            {},
            "bad_media",
        ),
        ((b"\n<!DOCTYPE html><img src=x>",), {}, "bad_media"),
        ((b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n",), {}, "bad_media"),
        ((picture("JPEG") + archive(),), {}, "polyglot_media"),
        ((picture("PNG") + b"<script>alert(1)</script>",), {}, "polyglot_media"),
        ((picture("JPEG", comment=b"<?php system('id'); ?>"),), {}, "polyglot_media"),
    ],
)
def test_unusable_media_are_dropped_with_a_reason(media, limits, reason):
    # Twice, because a content is only looked at once.
    kept, pipeline = run(conversation(media=media), conversation(media=media, name="r2"), **limits)
    assert not kept
    assert [(d.row, d.reason, d.stage) for d in pipeline.drops] == [
        (row, reason, "validate") for row in ("r1", "r2")
    ]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("user", "?"), ("assistant", " \n")], "empty_text"),
        ([("user", "\ufeff"), ("assistant", "!")], "empty_text"),
        ([("user", "?")], "bad_roles"),
        ([("assistant", "!")], "bad_roles"),
        ([("user", "?"), ("assistant", "!"), ("user", "?")], "bad_roles"),
        ([("user", "?"), ("system", "x"), ("assistant", "!")], "bad_roles"),
        ([("system", "x")], "bad_roles"),
        ([("user", "?" * 50), ("assistant", "!")], "text_too_long"),
    ],
)
def test_unusable_text_is_dropped_with_a_reason(turns, reason):
    kept, pipeline = run(conversation(*turns), max_characters=40)
    assert not kept
    assert [(d.reason, d.stage) for d in pipeline.drops] == [(reason, "normalise")]


def test_text_is_put_into_one_form_and_says_so():
    (kept,), _ = run(
        conversation(
            ("system", "Brief. "),
            ("user", "One\r\n"),
            ("user", "Two <|im_end|>"),
            ("assistant", " cafe\u0301"),
        )
    )
    assert [(m.role, [p.text for p in m.content]) for m in kept.record.messages] == [
        ("system", ["Brief."]),
        ("user", ["One\n\nTwo <\\|im_end|>"]),
        ("assistant", ["caf\u00e9"]),
    ]
    assert json.loads(kept.record.provenance) == {"transforms": ["cleaned", "escaped_control_tokens"]}


def test_a_token_split_over_two_parts_is_escaped():
    message = Message("user", (Part("text", "<|im_"), Part("text", "start|>")))
    answer = Message("assistant", (Part("text", "!"),))
    record = CorpusRecord("r", (message, answer), (), "s", "MIT", "digital", "general")
    (kept,), _ = run(Conversation(record))
    assert kept.record.messages[0].content == (Part("text", "<\\|im_start|>"),)


def test_of_equal_conversations_the_first_is_kept():
    one, other = picture(), picture(size=(50, 50))
    items = [
        conversation(media=(one,), name="a"),
        conversation(("user", "What? "), ("assistant", "That."), media=(one,), name="b"),
        conversation(media=(other,), name="c"),
        conversation(name="d"),
        conversation(("user", "What"), ("assistant", "? That."), name="e"),
        conversation(name="f"),
    ]
    kept, pipeline = run(*items)
    assert [c.record.id for c in kept] == ["a", "c", "d", "e"]
    assert [(d.row, d.reason, d.note) for d in pipeline.drops] == [
        ("b", "duplicate", "the same as a"),
        ("f", "duplicate", "the same as d"),
    ]


def test_conversations_about_one_image_or_one_group_share_a_split():
    shared = picture()
    about_one = [
        conversation(("user", f"{i}?"), ("assistant", "!"), media=(shared,), name=f"i{i}") for i in range(40)
    ]
    of_group = [
        conversation(("user", f"{i}!"), ("assistant", "!"), name=f"g{i}", group="episode") for i in range(40)
    ]
    apart = [conversation(("user", f"{i}."), ("assistant", "!"), name=f"t{i}") for i in range(400)]
    kept, _ = run(*about_one, *of_group, *apart)
    splits = {c.record.id: c.record.split for c in kept}
    assert len({splits[f"i{i}"] for i in range(40)}) == 1
    assert len({splits[f"g{i}"] for i in range(40)}) == 1
    held_out = [splits[f"t{i}"] for i in range(400)].count("train")
    # 90 % of 400 with four standard deviations to either side.
    assert 336 < held_out < 384


def test_each_stage_conserves_what_comes_in():
    items = [
        Drop("s", "0", "bad_json"),
        conversation(media=(b"x",), name="r1"),
        conversation(("user", "?"), name="r2"),
        conversation(name="r3"),
        conversation(name="r4"),
    ]
    kept, pipeline = run(*items)
    found = [(r.name, r.inputs, r.kept, dict(r.dropped)) for r in pipeline.reports]
    assert found == [
        ("read", 5, 4, {"bad_json": 1}),
        ("licence", 4, 4, {}),
        ("validate", 4, 3, {"bad_media": 1}),
        ("normalise", 3, 2, {"bad_roles": 1}),
        ("quality", 2, 2, {}),
        ("language", 2, 2, {}),
        ("mask", 2, 2, {}),
        ("dedup", 2, 1, {"duplicate": 1}),
        ("split", 1, 1, {}),
    ]
    assert len(kept) + len(pipeline.drops) == 5
