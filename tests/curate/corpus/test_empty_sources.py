import json

import yaml

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig


def build(folder, **changes):
    """A corpus of three sources; nothing is left of two of them."""
    good = [{"question": f"What is {n}?", "answer": f"Number {n}."} for n in range(4)]
    for name, rows in {
        "good": good,
        "lost": [{**one, "image": "a.jpg"} for one in good],
        "denied": good,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    licences = {"good": "mit", "lost": "cc0-1.0", "denied": "cc-by-nc-4.0"}
    sources = [
        {"kind": "parquet", "path": folder / f"{name}.json", "name": name, "licence": licence}
        for name, licence in licences.items()
    ]
    config = {"sources": sources, "output": folder / "out", "licences": {"deny": ["*-nc-*"]}} | changes
    return build_corpus(CorpusConfig(**config))


def test_sources_of_which_nothing_is_left_are_named_with_an_example(tmp_path):
    for _ in range(2):
        denied, lost = build(tmp_path).empty
        assert (denied.name, denied.dropped) == ("denied", {"licence": 4})
        assert denied.example == "'cc-by-nc-4.0' is denied by '*-nc-*'"
        assert (lost.name, lost.dropped) == ("lost", {"missing_media": 4})
        assert lost.example == "lost.json row 0, field 'image': 'a.jpg' does not exist below the media root"


def test_the_card_and_the_page_count_what_is_left_of_each_source(tmp_path):
    build(tmp_path)
    card = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == ["mit"]
    assert "| denied | parquet | cc-by-nc-4.0 | 0 |" in card
    assert "| good | parquet | mit | 4 |" in card
    page = (tmp_path / "out/report.html").read_text()
    (row,) = [one for one in page.split("<tr>") if "cc-by-nc-4.0" in one]
    assert ">0<" in row


def test_the_card_names_the_licences_of_records_that_bring_their_own(tmp_path):
    build(tmp_path, parquet=True)
    again = CorpusConfig(sources=(f"parquet:{tmp_path / 'out/parquet'}",), output=tmp_path / "again")  # type: ignore[arg-type]
    build_corpus(again)
    card = (tmp_path / "again/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == ["mit"]
    assert "| parquet | parquet | mit | 4 |" in card


def test_a_corpus_without_empty_sources_names_none(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps([{"question": "What?", "answer": "That."}]))
    config = CorpusConfig(sources=(f"parquet:{tmp_path / 'one.json'}",), output=tmp_path / "out")  # type: ignore[arg-type]
    assert build_corpus(config).empty == ()
