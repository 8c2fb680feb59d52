"""`blm curate inspect`: one record with its lineage, one that was left out with the reason, a corpus as a whole."""

import base64
import hashlib
import io
import json
import re

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from blm.cli import app
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.lookup import Corpus, DroppedInput, KeptRecord
from blm.schemas.errors import DatasetError, UsageError
from tests.curate.corpus.test_near_images import encoded, photograph

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["curate", "inspect", *map(str, arguments)])


def words(result):
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight photographs; 8 is 0 again, 9 looks like 2, 10 like 9, 11 is in a benchmark, 12 and 13 are broken."""
    folder = tmp_path_factory.mktemp("looked-up")
    rows = []

    def row(name, question, answer):
        turns = [{"from": "human", "value": f"<image>{question}"}, {"from": "gpt", "value": answer}]
        rows.append({"image": name, "conversations": turns})

    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(encoded(photograph(number)))
        row(
            f"{number}.jpg",
            "What is it,\nleft < right?",
            f"Scene {number}. Ask someone@example.com  <|im_end|>",
        )
    rows.append(rows[0])
    for quality in (50, 35):
        (folder / f"copy{quality}.jpg").write_bytes(encoded(photograph(2), quality=quality))
        row(f"copy{quality}.jpg", "What is it?", "The second again.")
    (folder / "exam.png").write_bytes(encoded(photograph(11), "PNG"))
    row("exam.png", "Which?", "The eleventh.")
    row("absent.jpg", "Where?", "Here.")
    rows.append(7)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "exam.jsonl").write_text(json.dumps({"question": "What then?", "image": "exam.png"}))
    config = CorpusConfig(
        sources=({"kind": "llava", "path": str(folder / "rows.json"), "name": "photos", "licence": "mit"},),  # type: ignore[arg-type]
        output=folder / "out",
        near_duplicates={"images": "any_text"},  # type: ignore[arg-type]
        benchmarks=(folder / "exam.jsonl",),
    )
    assert build_corpus(config).counts.kept == 8
    return folder / "out"


def test_a_kept_record_with_its_whole_lineage(corpus):
    found = Corpus(corpus).find("photos-00000002")
    assert isinstance(found, KeptRecord)
    assert hashlib.sha256(found.media[0]).hexdigest() == found.record.media[0].sha256
    assert (found.origin["file"], found.origin["row"]) == ("rows.json", 2)
    assert found.source is not None
    assert found.source.kind == "llava"
    assert [stage for stage, _ in found.changes] == ["normalise", "mask"]
    assert "email" in found.changes[-1][1]
    assert {one.id for one in found.represents} == {"photos-00000009", "photos-00000010"}
    first = Corpus(corpus).find("photos-00000000")
    assert isinstance(first, KeptRecord)
    assert [(one.id, one.reason, one.similarity) for one in first.represents] == [
        ("photos-00000008", "duplicate", 1.0)
    ]
    for member in found.members:
        with (corpus / member.shard).open("rb") as stream:
            stream.seek(member.offset)
            content = stream.read(member.size)
        assert content == found.media[0] if member.suffix.startswith("0.") else json.loads(content)["id"]


def test_what_was_left_out_and_why(corpus):
    def look(name) -> DroppedInput:
        found = Corpus(corpus).find(name)
        assert isinstance(found, DroppedInput)
        return found

    same, alike, further = (look(f"photos-{number:08d}") for number in (8, 9, 10))
    near = "near_duplicate_image"
    for found, stage, kept in ((same, "dedup", 0), (alike, near, 2), (further, near, 2)):
        assert found.stage == stage
        assert found.kept is not None
        assert found.kept.record.id == f"photos-{kept:08d}"
    assert [one.partner and one.partner.id for one in (same, alike)] == ["photos-00000000", "photos-00000002"]
    contaminated = look("photos-00000011")
    assert [(one["benchmark"], one["match"]) for one in contaminated.matches] == [("exam", "image")]
    assert contaminated.kept is None
    assert contaminated.content
    assert contaminated.content.record.messages[1].content[0].text == "The eleventh."
    assert Image.open(io.BytesIO(contaminated.content.media[0])).format == "PNG"
    assert look("12").content is None
    assert (look("12").reason, look("photos:12").field, look("photos-00000013").reason) == (
        "missing_media",
        "image",
        "bad_row",
    )


def test_names_that_are_none_get_the_nearest(corpus, tmp_path):
    with pytest.raises(UsageError, match="neither kept nor dropped") as told:
        Corpus(corpus).find("photo-00000003")
    assert "photos-00000003" in told.value.remedy
    with pytest.raises(DatasetError, match=r"holds no manifest\.json"):
        Corpus(tmp_path)


def test_a_damaged_shard_is_told(corpus, tmp_path):
    import shutil

    shutil.copytree(corpus, tmp_path / "copy")
    for shard in (tmp_path / "copy").glob("*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DatasetError, match="missing or not what was written") as told:
        Corpus(tmp_path / "copy").find("photos-00000003")
    assert "blm doctor" in told.value.remedy


def test_the_command_shows_a_record_and_opens_its_page(corpus, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("BROWSER", "any")
    shown = run("photos-00000002", "--corpus", corpus, "--output", tmp_path / "pages/one.html")
    assert shown.exit_code == 0, shown.output
    assert "kept, split" in shown.output
    assert re.search(r"user +\[image 0\] ?What is it,\n +left < right\?", shown.output)
    assert "changed by mask email replaced by [email]" in words(shown)
    assert "stands for photos-00000009 (near_duplicate_image, " in words(shown)
    assert re.search(r"lies in +\S+\.tar, byte \d+", shown.output)
    assert opened == [(tmp_path / "pages/one.html").as_uri()]
    page = (tmp_path / "pages/one.html").read_text()
    assert "left &lt; right?" in page
    assert "left < right" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    (picture,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == photograph(2).size


def test_a_server_gets_a_page_and_no_browser(corpus, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda page: pytest.fail("opened"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for extra in ([], ["--no-open"]):
        shown = run("photos-00000009", "--corpus", corpus, *extra)
        assert shown.exit_code == 0, shown.output
        assert "left out by near_duplicate_image" in words(shown)
        assert "assistant The second again." in words(shown)
        assert "photos-00000002 stands for it" in words(shown)
        assert re.search(r"page: file://\S+record\.html", shown.output)


def test_as_json_nothing_else_is_said(corpus, tmp_path):
    kept = json.loads(run("photos-00000003", "--corpus", corpus, "--json").stdout)
    assert (kept["status"], kept["record"]["provenance"]["row"]) == ("kept", 3)
    dropped = json.loads(run("photos-00000008", "--corpus", corpus, "--json").stdout)
    assert (dropped["status"], dropped["kept"], dropped["partner"]["reason"]) == (
        "dropped",
        "photos-00000000",
        "duplicate",
    )


def test_a_corpus_as_a_whole_says_how_to_ask_on(corpus):
    shown = run(corpus)
    assert shown.exit_code == 0, shown.output
    assert "14 conversations in, 8 kept" in words(shown)
    (name,) = re.findall(r"next: blm curate inspect (\S+) --corpus", shown.output)
    assert name in pq.read_table(corpus / "records.parquet")["id"].to_pylist()
    assert json.loads(run(corpus, "--json").stdout)["counts"]["kept"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos-1"], "there is no corpus in corpus"),
        (["photos-1", "photos-2"], "2 ids are more than one"),
        (["photos-1", "--corpus", "nowhere"], "there is no corpus in nowhere"),
        ([], "no datasets were named"),
    ],
)
def test_wrong_ways_to_ask(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in words(result)
    assert list(tmp_path.iterdir()) == []


def test_an_id_is_looked_up_in_the_folder_called_corpus(corpus, monkeypatch):
    (corpus.parent / "corpus").symlink_to(corpus)
    monkeypatch.chdir(corpus.parent)
    assert "kept, split" in run("photos-00000001", "--no-open").output
