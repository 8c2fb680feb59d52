"""A build reads again only what has changed and ends in the bytes of a build from nothing; a killed one does, too."""

import importlib
import json
import random
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
from PIL import Image

from blm.curate import output_folder
from blm.curate.corpus import build as builds
from blm.curate.corpus import comparison, language, source_cache, stages
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.perceptual_hash import image_hashes
from blm.curate.corpus.sources import SOURCE_KINDS
from blm.schemas.errors import OutputExistsError
from tests.curate.corpus.test_build import content_of

NAMES = ("a", "b", "c")


@pytest.fixture
def sources(tmp_path):
    """Three files of rows: with images, without, and some that are dropped in reading or by each stage."""
    folder = tmp_path / "sources"
    folder.mkdir()
    Image.effect_noise((40, 30), 50).save(folder / "noise.jpg")
    (folder / "broken.jpg").write_bytes(b"broken")
    for name in NAMES:
        rows = [{"question": f"What is {n} of {name}?", "answer": f"The {n}th of {name}."} for n in range(12)]
        rows += [{**rows[n], "question": f"What does {n} show?", "image": "noise.jpg"} for n in range(3)]
        rows += [{**rows[0]}, {**rows[0], "image": "broken.jpg"}, {**rows[0], "image": "none.jpg"}]
        rows += [
            {"question": "Mail?", "answer": f"Write to {name}@example.com."},
            {"question": "", "answer": "x"},
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def reads(monkeypatch):
    """The names of sources that were read, in order."""
    found = []
    kind = SOURCE_KINDS["parquet"]

    def read(path, config):
        found.append(config.name)
        return kind.read(path, config)

    monkeypatch.setitem(SOURCE_KINDS, "parquet", replace(kind, read=read))
    return found


@pytest.fixture
def judged(monkeypatch):
    """The sources of the conversations whose texts were judged."""
    found = []

    def quality_stage(config, report):
        stage = stages.quality_stage(config, report)

        def quality(conversation):
            found.append(conversation.record.source)
            return stage(conversation)

        return quality

    monkeypatch.setitem(stages.JUDGING_STAGES, "quality", quality_stage)
    return found


@pytest.fixture
def hashed(monkeypatch):
    """How many images were hashed, each time some were."""
    found = []

    def counted(images):
        found.append(len(images))
        return image_hashes(images)

    monkeypatch.setattr(comparison, "image_hashes", counted)
    return found


def config_of(sources, output, names=NAMES, **changes):
    listed = tuple({"kind": "parquet", "path": str(sources / f"{one}.jsonl"), "name": one} for one in names)
    return CorpusConfig(sources=listed, output=output, **changes)  # type: ignore[arg-type]


def build(*args, **changes):
    return build_corpus(config_of(*args, **changes))


def test_a_new_source_is_read_and_no_other(sources, reads, tmp_path):
    build(sources, tmp_path / "out", names=("a", "c"))
    assert reads == ["a", "c"]
    reads.clear()
    assert build(sources, tmp_path / "out").unchanged == ("a", "c")
    assert reads == ["b"]
    assert build(sources, tmp_path / "whole").unchanged == ()
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_texts_are_judged_again_only_where_a_rule_has_changed(sources, judged, tmp_path):
    build(sources, tmp_path / "out", names=("a", "c"))
    assert set(judged) == {"a", "c"}
    judged.clear()
    build(sources, tmp_path / "out")
    assert set(judged) == {"b"}
    judged.clear()
    build(
        sources, tmp_path / "out", overwrite=True, mixture={"per_source": 5}, fractions=CHANGES["fractions"]
    )
    assert judged == []
    changed = {"quality": {"skip": ["placeholder_answer"]}, "mask_personal_data": False}
    build(sources, tmp_path / "out", overwrite=True, **changed)
    assert set(judged) == set(NAMES)
    build(sources, tmp_path / "whole", **changed)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


@pytest.mark.parametrize("ending", [".arrow", ".json"])
def test_damaged_judgements_are_made_again(ending, sources, reads, judged, tmp_path):
    build(sources, tmp_path / "out", names=("a", "b"))
    damaged = next((tmp_path / "out/.cache").glob(f"a-*/judged-*{ending}"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    reads.clear()
    judged.clear()
    assert build(sources, tmp_path / "out").unchanged == ("a", "b")
    assert (reads, set(judged)) == (["c"], {"a", "c"})
    build(sources, tmp_path / "whole")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


@pytest.mark.parametrize("damaged", [False, True])
def test_images_are_hashed_once(damaged, sources, hashed, tmp_path):
    compared: dict = {"near_duplicates": {"images": "any_text"}}
    build(sources, tmp_path / "out", names=("a",), **compared)
    assert hashed == [1]
    if damaged:
        (kept,) = (tmp_path / "out/.cache").glob("image-hashes-*")
        kept.write_bytes(kept.read_bytes()[:-9] + b"unlikely?")
    Image.effect_noise((60, 40), 50).save(sources / "other.jpg")
    with (sources / "b.jsonl").open("a") as stream:
        stream.write('{"question": "And this?", "answer": "Other noise.", "image": "other.jpg"}\n')
    hashed.clear()
    build(sources, tmp_path / "out", **compared)
    assert hashed == [2 if damaged else 1]
    build(sources, tmp_path / "whole", **compared)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


CHANGES = {
    "mixture": {"per_source": 5},
    "near_duplicates": {"text": None, "images": "any_text"},
    "mask_personal_data": False,
    "fractions": {"train": 0.5, "val": 0.25, "test": 0.25},
}


@pytest.mark.parametrize(
    "changes",
    [
        CHANGES,
        {"quality": {"skip": ["placeholder_answer"], "max_answer_words": 30}},
        {"benchmarks": ("exam.txt",)},
        *(pytest.param({name: value}, marks=pytest.mark.slow) for name, value in CHANGES.items()),
        pytest.param({"languages": ("en",)}, marks=pytest.mark.slow),
        pytest.param({"parquet": True, "shard_bytes": 10_240}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_changed_rule_reads_nothing_again(changes, sources, reads, tmp_path):
    (tmp_path / "exam.txt").write_text("What is 7 of b?\n")
    if "benchmarks" in changes:
        changes = {"benchmarks": (tmp_path / "exam.txt",)}
    build(sources, tmp_path / "out")
    reads.clear()
    with pytest.raises(OutputExistsError, match="a build with another"):
        build(sources, tmp_path / "out", **changes)
    build(sources, tmp_path / "out", overwrite=True, **changes)
    assert reads == []
    build(sources, tmp_path / "whole", **changes)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_what_reading_depends_on_is_read_again(sources, reads, tmp_path):
    build(sources, tmp_path / "out")
    reads.clear()
    with (sources / "b.jsonl").open("a") as stream:
        stream.write('{"question": "New?", "answer": "Quite new."}\n')
    with pytest.raises(OutputExistsError, match="another content of b"):
        build(sources, tmp_path / "out")
    build(sources, tmp_path / "out", overwrite=True)
    assert reads == ["b"]
    reads.clear()
    Image.effect_noise((50, 30), 50).save(sources / "noise.jpg")
    build(sources, tmp_path / "out", overwrite=True)
    assert reads == list(NAMES)
    reads.clear()
    build(sources, tmp_path / "out", overwrite=True, limits={"min_side": 45})
    assert reads == list(NAMES)
    build(sources, tmp_path / "whole", limits={"min_side": 45})
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_a_file_under_another_name_is_another_input(sources, reads, tmp_path):
    build(sources, tmp_path / "out", names=("a",))
    (sources / "a.jsonl").rename(sources / "z.jsonl")
    renamed = {"kind": "parquet", "path": sources / "z.jsonl", "name": "a"}
    for output in ("out", "whole"):
        build_corpus(CorpusConfig(sources=(renamed,), output=tmp_path / output, overwrite=True))  # type: ignore[arg-type]
    assert reads == ["a", "a", "a"]
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_another_language_identifier_is_another_build(sources, reads, monkeypatch, tmp_path):
    monkeypatch.setattr(language, "_LEAST_LETTERS", 1)
    found = []
    for code in ("en", "fr"):
        monkeypatch.setattr(
            stages, "load_identifier", lambda code=code: lambda text: code if "Mail" in text else "en"
        )
        for module in (builds, source_cache):
            monkeypatch.setattr(module, "identifier_identity", lambda code=code: f"says {code}")
        summary = build(sources, tmp_path / "out", languages=("en", "de"))
        found.append(summary.counts.dropped.get("wrong_language", 0))
    assert found == [0, 3]
    assert reads == list(NAMES)


PLUG_IN = """
from blm.curate.corpus.sources.llava import read_llava
from blm.curate.corpus.conversation import Drop

def read_own(path, config):
    for number, item in enumerate(read_llava(path, config)):
        yield item if number < {most} else Drop(config.name, str(number), "too_many")
"""


def test_a_kind_of_another_package_is_read_again_when_its_code_changes(monkeypatch, tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]}
        for n in "abc"
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    entry = EntryPoint("own", "own_package:read_own", "blm.corpus_sources")
    monkeypatch.setattr("blm.curate.corpus.sources.entry_points", lambda group: [entry])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    kept = []
    for most in (1, 2, 2):
        (tmp_path / "own_package.py").write_text(PLUG_IN.format(most=most))
        sys.modules.pop("own_package", None)
        importlib.invalidate_caches()
        config = CorpusConfig(sources=(f"own:{tmp_path / 'rows.json'}",), output=tmp_path / "out")  # type: ignore[arg-type]
        kept.append(build_corpus(config).counts.kept)
    assert kept == [1, 2, 2]


def test_a_build_under_way_is_not_disturbed(sources, monkeypatch, tmp_path):
    monkeypatch.setattr(output_folder, "_PATIENCE_S", 0.0)
    with (
        output_folder.OutputFolder(tmp_path / "out", builds.KIND, "other").claimed(),
        pytest.raises(OutputExistsError, match="being written by another build"),
    ):
        build(sources, tmp_path / "out")


def test_a_damaged_or_absent_entry_is_read_again(sources, reads, tmp_path):
    build(sources, tmp_path / "out", names=("a", "b"))
    entries = sorted((tmp_path / "out/.cache").iterdir())
    assert [one.name[:2] for one in entries] == ["a-", "b-"]
    content = bytearray((entries[0] / "media").read_bytes())
    content[-1] ^= 1
    (entries[0] / "media").write_bytes(content)
    (entries[1] / "entry.json").unlink()
    reads.clear()
    build(sources, tmp_path / "out")
    assert reads == list(NAMES)
    build(sources, tmp_path / "whole")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_what_no_source_needs_any_more_goes(sources, reads, tmp_path):
    build(sources, tmp_path / "out")
    with pytest.raises(OutputExistsError, match=r"also has parquet:.*b\.jsonl"):
        build(sources, tmp_path / "out", names=("a", "c"))
    reads.clear()
    build(sources, tmp_path / "out", names=("a", "c"), overwrite=True)
    assert reads == []
    assert sorted(one.name[:2] for one in (tmp_path / "out/.cache").iterdir()) == ["a-", "c-"]


def test_without_a_cache_the_build_is_the_same(sources, reads, tmp_path):
    build(sources, tmp_path / "with")
    build(sources, tmp_path / "without", cache=False)
    assert not (tmp_path / "without/.cache").exists()
    found = {
        name: one for name, one in content_of(tmp_path / "with").items() if not name.startswith(".cache")
    }
    assert found == content_of(tmp_path / "without")
    assert reads == [*NAMES, *NAMES]


KILLED = """
import os, sys
from tests.curate.corpus.test_source_cache import build
from pathlib import Path

sources, output, moment = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
count = 0

def watch(event, arguments):
    global count
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and output in str(arguments[0]):
        count += 1
        if count == moment:
            os._exit(9)

sys.addaudithook(watch)
build(sources, Path(output), parquet=True, shard_bytes=10_240)
print(count)
"""


def killed(sources, output, moment):
    """Build in another process that ends without a word at the nth change of a file."""
    command = [sys.executable, "-c", KILLED, str(sources), str(output), str(moment)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_charts")
def test_killed_at_any_moment_a_build_ends_in_the_same_bytes(sources, tmp_path):
    whole = killed(sources, tmp_path / "whole", 0)
    moments = int(whole.stdout)
    expected = content_of(tmp_path / "whole")
    assert moments > 60
    for number, moment in enumerate(random.Random(5).sample(range(1, moments + 1), 12)):
        output = tmp_path / f"killed-{number}"
        assert killed(sources, output, moment).returncode == 9
        build(sources, output, parquet=True, shard_bytes=10_240)
        assert content_of(output) == expected, f"killed at change {moment} of {moments}"
