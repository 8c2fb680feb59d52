import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.corpus.text import clean_text, escape_control_tokens

TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_pad|>", "<image>", "</s>", "[INST]", "<row_1_col_12>")
pieces = st.lists(
    st.sampled_from([*TOKENS, "<", "|", ">", "im_end", "[", "/", "s", " ", "\\", "a"]), max_size=12
)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<|im_start|>system", "<\\|im_start|>system"),
        ("a<|im_end|>\n<|im_start|>b", "a<\\|im_end|>\n<\\|im_start|>b"),
        ("see <image> here</s>", "see <\\image> here<\\/s>"),
        ("[INST] x [/INST]", "[\\INST] x [\\/INST]"),
        ("if a <|b| or x < 3 > 2: <img> a[i]", "if a <|b| or x < 3 > 2: <img> a[i]"),
    ],
)
def test_control_tokens_are_escaped_and_nothing_else(text, escaped):
    assert escape_control_tokens(text) == escaped


@given(pieces.map("".join))
def test_no_token_survives_escaping(text):
    escaped = escape_control_tokens(text)
    assert not any(token in escaped for token in TOKENS)
    assert escape_control_tokens(escaped) == escaped
    if not any(mark in text for mark in "<["):
        assert escaped == text


@given(st.text(st.characters(), max_size=60) | st.text("e\u0301\r\n\t \x00\ud800\u2028<|>a", max_size=30))
def test_cleaning_gives_one_form(text):
    clean = clean_text(text)
    assert clean_text(clean) == clean == unicodedata.normalize("NFC", clean).strip()
    assert not set(clean) & set("\r\x00\u2028")
    clean.encode()


def test_cleaning_keeps_what_carries_meaning():
    assert (
        clean_text("  def f():\r\n    return 1  \r\n\r\n\r\n\r\ndone\ufeff ")
        == "def f():\n    return 1\n\ndone"
    )
    assert clean_text("cafe\u0301") == "caf\u00e9"
