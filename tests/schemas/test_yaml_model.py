from typing import Literal

import pytest

from blm.curate.corpus.config import CorpusConfig
from blm.schemas.errors import ConfigError
from blm.schemas.yaml_model import FrozenModel, read_yaml, validate


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"sources": ["rows.json"]},
            "x: key 'sources.0': a source is KIND:PATH, for example lerobot:datasets/pushes",
        ),
        ({"sources": "llava:rows.json"}, "x: key 'sources': Input should be a list; got 'llava:rows.json'."),
        ({"sources": []}, "x: key 'sources': Tuple should have at least 1 item"),
        ({"sources": ["llava:rows.json"], "licenses": {}}, "x: unknown key 'licenses'."),
    ],
)
def test_a_wrong_key_is_told_in_the_words_of_yaml(content, message):
    with pytest.raises(ConfigError) as caught:
        validate(CorpusConfig, {**content, "output": "out"}, "x")
    assert caught.value.message.startswith(message)
    assert "more)" not in caught.value.message


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "corpus.yaml").write_text("# nothing yet\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_yaml(tmp_path / "corpus.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sources: [rows\n", "expected ',' or ']', but got '<stream end>' (line 2, column 1)."),
        (b"sources: \x07\n", "not readable as YAML: unacceptable character #x0007"),
        (b"PAR1\xea", "it is no text in UTF-8."),
    ],
)
def test_what_is_no_yaml_is_told_in_one_line(tmp_path, content, message):
    (tmp_path / "corpus.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "corpus.yaml")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_a_key_that_may_have_several_types_is_named_without_them():
    class Shares(FrozenModel):
        mixture: dict[str, float] | Literal["natural"] | None = None

    with pytest.raises(ConfigError, match="x: key 'mixture': Input should be a mapping; got 'balancd'"):
        validate(Shares, {"mixture": "balancd"}, "x")
