import json
import random
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.curate.corpus import build
from blm.curate.corpus.benchmark_items import BenchmarkItem
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.comparison import compare
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.spool import Spool
from blm.schemas.corpus import table_to_records
from blm.schemas.errors import ConfigError, UnknownNameError
from blm.schemas.progress import silent
from tests.curate.corpus.test_near_images import encoded, photograph
from tests.curate.corpus.test_stages import conversation

CONTEXT = "The gripper moves over the table slowly and then it waits above the red cube for a while until it is told "
PHOTO, COPY, OTHER = (
    encoded(photograph(1)),
    encoded(photograph(1), quality=40),
    encoded(photograph(2)),
)


def said(question, answer, name, media=()):
    return conversation(("user", question), ("assistant", answer), media=media, name=name)


def compared(tmp_path, conversations, items=(), **settings):
    config = CorpusConfig(sources=("llava:x.json",), output="out", **settings)  # type: ignore[arg-type]
    with Spool(tmp_path / "spool") as spool:
        for one in conversations:
            spool.add(one)
        spool.seal()
        found = compare(spool, config, items, silent)
    assert not (tmp_path / "spool").exists()
    assert sum(report.dropped.total() for report in found.reports) == len(found.drops) == (~found.keep).sum()
    return {one.record.id for one, keep in zip(conversations, found.keep, strict=True) if keep}, found


def test_a_spool_gives_back_what_it_was_given(tmp_path):
    given = [
        said("One?", "Yes", "a", (PHOTO, OTHER)),
        said("Two?", "No", "b"),
        said("Three?", "No", "c", (PHOTO,)),
    ]
    with Spool(tmp_path / "spool") as spool:
        for one in given:
            spool.add(one)
        spool.seal()
        assert list(spool.conversations(np.ones(3, dtype=bool))) == given
        assert list(spool.conversations(np.array([False, True, True]))) == given[1:]
        assert spool.conversation(2) == given[2]
        assert spool.contents == 2
        assert [part.tolist() for part in spool.media()] == [[0, 1, 0], [0, 2, 2, 3]]
        assert (tmp_path / "spool/media").stat().st_size == len(PHOTO) + len(OTHER)


def test_an_empty_spool_is_compared_too(tmp_path):
    assert compared(tmp_path, [], [BenchmarkItem("b", 0, "?")])[0] == set()


def test_near_duplicate_texts_are_dropped_among_the_same_media_only(tmp_path):
    question = CONTEXT + "to go on with its work. What does it do next?"
    kept, found = compared(
        tmp_path,
        [
            said(question, "It grasps", "first", (PHOTO,)),
            said(question.replace("slowly", "quickly"), "It grasps", "alike", (PHOTO,)),
            said(question.replace("slowly", "gently"), "It grasps", "elsewhere", (OTHER,)),
            said(question.replace("slowly", "now"), "It grasps", "nowhere"),
            said(question.replace("slowly", "later"), "It opens", "another answer", (PHOTO,)),
        ],
    )
    assert kept == {"first", "elsewhere", "nowhere", "another answer"}
    (drop,) = found.drops
    assert (drop.row, drop.stage, drop.reason) == ("alike", "near_duplicate_text", "near_duplicate_text")
    duplicates, contamination = found.tables()
    (row,) = duplicates.to_pylist()
    assert (row["id"], row["partner"], row["kept"]) == ("alike", "first", "first")
    assert 0.7 <= row["similarity"] < 1
    assert drop.note == f"{row['similarity']:.2f} alike first"
    assert len(contamination) == 0


def test_long_answers_may_differ_in_a_word(tmp_path):
    answer = CONTEXT * 2 + "to go on"
    kept, _ = compared(
        tmp_path, [said("Why?", answer, "a"), said("Why?", answer.replace("told", "asked", 1), "b")]
    )
    assert kept == {"a"}
    kept, _ = compared(
        tmp_path,
        [said("Why?", answer, "a"), said("Why?", answer.replace("told", "asked", 1), "b")],
        near_duplicates={"text": None},
    )
    assert kept == {"a", "b"}


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("keep", {"a", "a2", "b", "c", "d"}),
        ("same_text", {"a", "a2", "c", "d"}),
        ("any_text", {"a", "a2", "d"}),
    ],
)
def test_images_that_look_alike(tmp_path, images, expected):
    conversations = [
        said("What is it?", "A scene", "a", (PHOTO,)),
        said("Where is it?", "Here", "a2", (PHOTO,)),
        said("What is it?", "A scene", "b", (COPY,)),
        said("Is it large?", "Yes", "c", (COPY,)),
        said("What is it?", "A scene", "d", (COPY, OTHER)),
    ]
    kept, found = compared(tmp_path, conversations, near_duplicates={"images": images})
    assert kept == expected
    assert {drop.reason for drop in found.drops} <= {"near_duplicate_image"}


def test_planted_contamination_is_found_and_questions_about_other_pictures_stay(tmp_path):
    generator = random.Random(3)
    long = " ".join(f"w{generator.randrange(200)}" for _ in range(30))
    items = [
        BenchmarkItem("text", 0, long, "no"),
        BenchmarkItem("text", 1, "What is the capital of France?", "Paris"),
        BenchmarkItem("pictures", 0, "How many are there?", "Two", images=(COPY,)),
    ]
    conversations = [
        said(f"Listen: {long.title()}", "Yes", "long"),
        said("what is the capital of France", "Paris.", "answer"),
        said("What is the capital of France?", "Rome", "another answer"),
        said("What colour is it?", "Red", "picture", (OTHER, PHOTO)),
        said("How many are there?", "Two", "another picture", (OTHER,)),
        said("How many are there?", "Two", "no picture"),
    ]
    kept, found = compared(
        tmp_path, conversations, items, benchmarks=({"path": "text.txt"}, {"path": "pictures.json"})
    )
    assert kept == {"another answer", "another picture"}
    rows = [(r["id"], r["benchmark"], r["item"], r["match"]) for r in found.tables()[1].to_pylist()]
    assert rows == [
        ("long", "text", 0, "words"),
        ("answer", "text", 1, "answer"),
        ("picture", "pictures", 0, "image"),
        ("no picture", "pictures", 0, "answer"),
    ]
    report = found.reports[-1]
    assert (report.name, report.inputs, dict(report.dropped)) == ("decontaminate", 6, {"contaminated": 4})


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    (tmp_path / "copy.jpg").write_bytes(COPY)

    def row(image, question, answer):
        turns = [{"from": "human", "value": f"<image>{question}"}, {"from": "gpt", "value": answer}]
        return {"image": image, "conversations": turns}

    content = [row("photo.jpg", f"{CONTEXT}{i} {i * i} times. Why?", "So") for i in range(10)]
    content += [
        row("photo.jpg", f"{CONTEXT}{i} {i * i} times. Why?".replace("gripper", "arm"), "So")
        for i in range(5)
    ]
    content += [row("copy.jpg", "What is it?", f"Thing {i}") for i in range(5)]
    (tmp_path / "rows.json").write_text(json.dumps(content))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "What is it?", "answer": "thing 3"}))
    return tmp_path / "rows.json"


def test_a_build_leaves_out_and_names_what_is_alike_and_contaminated(rows, tmp_path):
    config = CorpusConfig(
        sources=(f"llava:{rows}",),  # type: ignore[arg-type]
        output=tmp_path / "out",
        benchmarks=(str(tmp_path / "test.jsonl"),),  # type: ignore[arg-type]
    )
    summary = build_corpus(config)
    assert summary.counts.dropped == {"contaminated": 1, "near_duplicate_text": 5}
    left = {one.id for one in table_to_records(pq.read_table(tmp_path / "out/records.parquet"))}
    dropped = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert len(left) == 14
    assert not left & {row["row"] for row in dropped}
    assert len(pq.read_table(tmp_path / "out/near_duplicates.parquet")) == 5
    (match,) = pq.read_table(tmp_path / "out/contamination.parquet").to_pylist()
    assert (match["benchmark"], match["item"], match["evidence"]) == ("test", 0, "What is it? → Thing 3")
    assert not (tmp_path / "out/spool").exists()
    again = build_corpus(config)
    assert again.reused == again.shards
    # The benchmark's content decides, not where it lies.
    (tmp_path / "moved").mkdir()
    (tmp_path / "test.jsonl").rename(tmp_path / "moved/test.jsonl")
    moved = config.model_copy(
        update={
            "benchmarks": (config.benchmarks[0].model_copy(update={"path": tmp_path / "moved/test.jsonl"}),)
        }
    )
    assert build_corpus(moved).reused == summary.shards


@pytest.mark.parametrize("moment", ["compare", "corpus_page"])
def test_a_build_cut_short_while_comparing_ends_in_the_same_bytes(rows, tmp_path, monkeypatch, moment):
    def stop(*_):
        raise KeyboardInterrupt

    def built(name):
        output = tmp_path / name
        build_corpus(CorpusConfig(sources=(f"llava:{rows}",), output=output))  # type: ignore[arg-type]
        return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}

    whole = built("whole")
    monkeypatch.setattr(build, moment, stop)
    with pytest.raises(KeyboardInterrupt):
        built("cut")
    monkeypatch.undo()
    assert not (tmp_path / "cut/manifest.json").exists()
    # As after a kill, which leaves the spool behind.
    (tmp_path / "cut/.unfinished/spool").mkdir()
    (tmp_path / "cut/.unfinished/spool/media").write_bytes(b"half")
    assert built("cut") == whole


def test_two_benchmarks_of_one_name_are_refused(rows, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/test.jsonl").write_text("")
    with pytest.raises(ConfigError, match="one name"):
        build_corpus(
            CorpusConfig(
                sources=(f"llava:{rows}",),  # type: ignore[arg-type]
                output=tmp_path / "out",
                benchmarks=(tmp_path / "test.jsonl", tmp_path / "a/test.jsonl"),
            )
        )


def test_only_images_of_the_sources_named_are_compared(tmp_path):
    def of(source, one):
        return one._replace(record=replace(one.record, source=source))

    conversations = [
        of(source, said("What is it?", f"Thing {number} of {source}", f"{source}{number}", (image,)))
        for source in ("frames", "photos")
        for number, image in enumerate((PHOTO, COPY))
    ]
    kept, _ = compared(
        tmp_path, conversations, near_duplicates={"images": "any_text", "image_sources": ["photos"]}
    )
    assert kept == {"frames0", "frames1", "photos0"}


def test_a_source_that_is_not_there_cannot_be_compared(rows, tmp_path):
    with pytest.raises(UnknownNameError, match="corpus source 'photos' not found; there are: rows_json"):
        build_corpus(
            CorpusConfig(
                sources=(f"llava:{rows}",),  # type: ignore[arg-type]
                output=tmp_path / "out",
                near_duplicates={"image_sources": ["photos"]},  # type: ignore[arg-type]
            )
        )
