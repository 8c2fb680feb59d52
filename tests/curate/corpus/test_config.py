"""What people mistype or leave out: it is refused with the words that mend it."""

import json

import pytest

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig, read_corpus_config
from blm.schemas.errors import BlmError, ConfigError, DatasetError, UnknownNameError


@pytest.fixture
def rows(tmp_path):
    content = [{"question": f"What is {n}?", "answer": f"Number {n}."} for n in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps(content))
    return tmp_path / "rows.json"


def build(rows, source=None, **changes):
    sources = [{"kind": "parquet", "path": rows, "name": "rows"} | (source or {})]
    config = CorpusConfig(sources=sources, output=rows.parent / "out", cache=False, **changes)  # type: ignore[arg-type]
    return build_corpus(config)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("languages: [english]", "languages.0"),
        ("languages: [EN]", "languages.0"),
        ("quality: {skip: [link]}", "no rule 'link'; there are: question_length, answer_length"),
        ("mixture: {families: {generl: 5}}", "mixture.families.generl"),
        ("mixture: {sources: {rows: -1}}", "mixture.sources.rows"),
    ],
)
def test_a_wrong_value_is_refused(line, message, rows, tmp_path):
    path = tmp_path / "corpus.yaml"
    path.write_text(f"sources: [parquet:{rows}]\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        read_corpus_config(path, output=tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "changes", "error", "message"),
    [
        ({}, {"mixture": {"sources": {"row": 2}}}, UnknownNameError, "Did you mean 'rows'"),
        ({"options": {"colums": {}}}, {}, ConfigError, "no option 'colums'. Its options: columns"),
        ({"kind": "llava", "options": {"columns": {}}}, {}, ConfigError, "Its options: none"),
        ({"media_root": "nowhere"}, {}, DatasetError, "media_root nowhere is no folder"),
    ],
)
def test_what_the_build_does_not_have_is_refused(source, changes, error, message, rows):
    with pytest.raises(error, match=message):
        build(rows, source, **changes)
    assert not (rows.parent / "out").exists()


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ([], {}, r"there is no conversation in rows \(.*rows.json\)"),
        (
            [{"query": "What?", "say": "That."}],
            {},
            "answer.*is missing; there are: query, say.*columns and media_root",
        ),
        ([{"question": "What?", "answer": "That."}], {"licences": {"deny": ["unknown"]}}, "Check the rules"),
    ],
)
def test_where_nothing_is_left_the_message_says_what_to_look_at(content, changes, message, rows):
    rows.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        build(rows, **changes)
    assert not (rows.parent / "out").exists()


def test_a_benchmark_without_questions_is_refused(rows, tmp_path):
    exam = tmp_path / "exam.jsonl"
    exam.write_text("\n")
    with pytest.raises(BlmError, match=r"benchmark 'exam': .*exam\.jsonl holds no question"):
        build(rows, benchmarks=(exam,))
