"""Text in one form: Unicode NFC, plain line ends, no invisible control characters, no chat-template tokens."""

from __future__ import annotations

import re
import unicodedata

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
_LINE_END = re.compile(r"\r\n?|\u2028|\u2029")
_TRAILING_SPACE = re.compile(r"[ \t\u00a0]+(?=\n|$)")
_EMPTY_LINES = re.compile(r"\n{3,}")

_NAMED_TOKENS = (
    "image",
    "video",
    "s",
    "/s",
    "pad",
    "unk",
    "bos",
    "eos",
    "mask",
    "start_of_turn",
    "end_of_turn",
    "end_of_utterance",
    "fake_token_around_image",
    "global-img",
    r"row_\d+_col_\d+",
)
_CONTROL_TOKEN = re.compile(rf"<(?=\|[^<>|\s]{{1,64}}\|>|(?:{'|'.join(_NAMED_TOKENS)})>)|\[(?=/?INST\])")


def clean_text(text: str) -> str:
    """The text in NFC, with \\n as line end, without trailing spaces, control characters, or outer white space."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _CONTROL_CHARACTERS.sub("", _LINE_END.sub("\n", text))
    text = unicodedata.normalize("NFC", text)
    return _EMPTY_LINES.sub("\n\n", _TRAILING_SPACE.sub("", text)).strip()


def escape_control_tokens(text: str) -> str:
    """The text with a backslash behind the bracket that opens a control token of a chat template.

    '<|im_start|>' becomes '<\\|im_start|>', '[INST]' becomes '[\\INST]': readable, and no tokenizer takes it for the
    end of a turn or for an image. Text without such tokens is returned as it is.
    """
    return _CONTROL_TOKEN.sub(lambda bracket: bracket.group() + "\\", text)
