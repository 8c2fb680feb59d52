"""What is not worth training on: each rule is a function that says why, or None; its name is the reason of the drop.

    question_length, answer_length, repetition, refusal, mojibake, markup, links, placeholder_answer, answer_leakage

Every rule is linear in the text's length. What is short, e.g. 'left' or '5', is a good answer here: no rule minds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field, field_validator

from blm.schemas.corpus import CorpusRecord
from blm.schemas.yaml_model import FrozenModel


class Quality(FrozenModel):
    """Thresholds of the rules. `skip` names rules that are not applied."""

    skip: tuple[str, ...] = Field(default=(), description="rules that are left out")
    min_question_words: int = Field(default=1, ge=0)
    min_answer_words: int = Field(default=1, ge=0)
    max_answer_words: int = Field(default=4000, ge=1)
    repeated_lines: float = Field(default=0.4, ge=0, le=1, description="most characters in lines said before")
    repeated_words: float = Field(
        default=0.4, ge=0, le=1, description="most words in runs of six that came before"
    )
    longest_character_run: int = Field(default=40, ge=2, description="of one letter or digit")
    mojibake_words: float = Field(
        default=0.01, ge=0, le=1, description="most words that were decoded wrongly"
    )
    markup_tags: float = Field(default=0.1, ge=0, description="most HTML tags and entities per word")
    link_characters: float = Field(default=0.3, ge=0, le=1, description="most characters in addresses")
    leaked_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of a question's words that are the answer, from which it leaks",
    )

    @field_validator("skip")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in RULES:
                raise ValueError(f"there is no rule '{name}'; there are: {', '.join(RULES)}")
        return names


@dataclass(frozen=True)
class Said:
    """A conversation's texts: those of the user and system, and those of the assistant; and each pair of them."""

    exchanges: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, record: CorpusRecord) -> Said:
        said = [
            (one.role, "\n".join(part.text for part in one.content if part.kind == "text"))
            for one in record.messages
            if one.role != "system"
        ]
        turns = [text for _, text in said]
        return cls(tuple(zip(turns[::2], turns[1::2], strict=False)))

    @cached_property
    def answers(self) -> tuple[str, ...]:
        return tuple(answer for _, answer in self.exchanges)

    @cached_property
    def everything(self) -> str:
        return "\n".join(text for exchange in self.exchanges for text in exchange)


Rule = Callable[[Said, Quality], str | None]

_REPEATED_RUN = 6
_FEW_WORDS, _FEW_LINES = 60, 6
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(?:as an? (?:ai|artificial intelligence|large language|language)(?: language)? (?:model|assistant)\b"
    r"|(?:i'?m|i am) (?:just )?an? (?:ai|language) (?:language )?(?:model|assistant)\b"
    r"|(?:i'?m|i am) (?:really |very |so )?sorry,? (?:but )?(?:i|as)\b.{0,40}"
    r"\b(?:can'?t|cannot|can not|unable|not able)\b"
    r"|i (?:can'?t|cannot|can not|won'?t|am unable to|'?m unable to|am not able to|'?m not able to)"
    r" (?:(?:assist|help|comply|fulfil+|provide|answer|engage) (?:you )?(?:with )?(?:that|this|your|the request)"
    r"|(?:see|view|process) (?:(?:the|this|that|your|any|these|those) )?(?:images?|pictures?|photos?|videos?))\b)",
    re.IGNORECASE,
)
_REFUSAL_AT_FIRST = 200
_MOJIBAKE_LEAD = re.compile(r"[ÂÃâÐÑ][^\x00-\x7f\s]|ï»¿|\ufffd")
_TAG = re.compile(
    r"</?(?:a|b|i|p|u|br|hr|h[1-6]|td|tr|th|ul|ol|li|em|div|img|nav|pre|sub|sup|span|body|html|head|font|form|link|"
    r"meta|table|tbody|thead|input|style|strong|script|iframe|button|footer|header|section|title|svg)\b[^<>]{0,400}>"
    r"|&(?:nbsp|amp|lt|gt|quot|#\d{1,6}|#x[0-9a-f]{1,6});",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]{1,2000}", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"^\W*(?:nan|null|undefined|todo|tbd|lorem ipsum.*|placeholder|\[?deleted\]?|\[?removed\]?)\W*$",
    re.IGNORECASE | re.DOTALL,
)
_GIVEN_ANSWER = re.compile(
    r"(?:\b(?:the )?(?:correct |right )?answer(?: is|:| =)|\bA:|\bsolution:)\s*[\"'(]?([^\n\"').;]{1,400})",
    re.IGNORECASE,
)
_OPTION_LINE = re.compile(r"^\s*\(?[A-H][.):]\s.*$", re.MULTILINE)
_LEAST_LEAKED_WORDS = 4


def question_length(said: Said, wanted: Quality) -> str | None:
    counts = [_word_count(question) for question, _ in said.exchanges]
    # Later on, a question in marks alone, e.g. '?' or an emoji, says enough and counts as a word.
    shortest = min([*counts[:1], *(max(count, 1) for count in counts[1:])], default=0)
    return f"{shortest} words" if shortest < wanted.min_question_words else None


def answer_length(said: Said, wanted: Quality) -> str | None:
    for answer in said.answers:
        count = _word_count(answer)
        # An answer in marks alone, e.g. an emoji or an operator, counts as a word.
        if not wanted.min_answer_words <= max(count, 1) <= wanted.max_answer_words:
            return f"{count} words"
    return None


def repetition(said: Said, wanted: Quality) -> str | None:
    """An answer that says the same lines, runs of words or letters again and again."""
    for answer in said.answers:
        lines = [line.strip() for line in answer.splitlines() if line.strip()]
        if len(lines) >= _FEW_LINES and (share := _repeated_lines(lines)) > wanted.repeated_lines:
            return f"{share:.2f} of its characters are in lines said before"
        words = [word.lower() for word in _WORD.findall(answer)]
        if len(words) >= _FEW_WORDS and (share := repeated_share(words)) > wanted.repeated_words:
            return f"{share:.2f} of its words are in runs said before"
        if (run := _longest_run(answer)) > wanted.longest_character_run:
            return f"a character {run} times in a row"
    return None


def refusal(said: Said, wanted: Quality) -> str | None:
    """Boilerplate of an assistant that declines, at the beginning of an answer."""
    for answer in said.answers:
        if found := _REFUSAL.search(answer[:_REFUSAL_AT_FIRST].replace("’", "'")):
            return f"'{found.group()[:80]}'"
    return None


def mojibake(said: Said, wanted: Quality) -> str | None:
    """Words that make sense when decoded again as UTF-8, and replacement characters."""
    text = said.everything
    if text.isascii() or not _MOJIBAKE_LEAD.search(text):
        return None
    words = text.split()
    broken = [word for word in words if "\ufffd" in word or _decoded_wrongly(word)]
    if broken and len(broken) > wanted.mojibake_words * len(words):
        return f"{len(broken)} of {len(words)} words, e.g. {broken[0]!r:.60}"
    return None


def markup(said: Said, wanted: Quality) -> str | None:
    """HTML outside of blocks of code."""
    text = said.everything
    if "<" not in text and "&" not in text:
        return None
    plain = _CODE_BLOCK.sub("", text)
    count = len(_TAG.findall(plain))
    words = max(1, _word_count(plain))
    return f"{count} tags in {words} words" if count > max(1, wanted.markup_tags * words) else None


def links(said: Said, wanted: Quality) -> str | None:
    text = said.everything
    length = sum(len(found) for found in _ADDRESS.findall(text))
    share = length / max(1, len(text))
    return f"{share:.2f} of its characters are addresses" if share > wanted.link_characters else None


def placeholder_answer(said: Said, wanted: Quality) -> str | None:
    for answer in said.answers:
        if _PLACEHOLDER.match(answer):
            return f"{answer!r:.60}"
    return None


def answer_leakage(said: Said, wanted: Quality) -> str | None:
    """The question gives its answer away: it says 'answer: …', or consists of the answer to a large part.

    Options to choose from are no leak, nor is a passage that the answer is found in, nor a greeting that is returned in
    a longer conversation.
    """
    repeated = []
    for question, answer in said.exchanges:
        wanted_words = _plain(answer)
        if not wanted_words:
            continue
        for given in _GIVEN_ANSWER.findall(question):
            if _plain(given) == wanted_words:
                return f"the question says {given.strip()!r:.80}"
        if len(wanted_words) < _LEAST_LEAKED_WORDS:
            continue
        asked = _plain(_OPTION_LINE.sub("", question))
        share = len(wanted_words) / max(1, len(asked))
        if wanted.leaked_share <= share <= 1 and f" {' '.join(wanted_words)} " in f" {' '.join(asked)} ":
            repeated.append(f"{share:.2f} of the question are the answer {answer!r:.80}")
    return repeated[0] if 2 * len(repeated) >= len(said.exchanges) and repeated else None


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        question_length,
        answer_length,
        placeholder_answer,
        refusal,
        mojibake,
        markup,
        links,
        repetition,
        answer_leakage,
    )
}
"""In the order in which they are applied: the first that objects names the reason."""


def objection(record: CorpusRecord, wanted: Quality) -> tuple[str, str] | None:
    """The reason and what was found, if a rule objects."""
    said = Said.of(record)
    for name, rule in RULES.items():
        if name not in wanted.skip and (note := rule(said, wanted)) is not None:
            return name, note
    return None


def repeated_share(words: list[str]) -> float:
    """The share of words that belong to a run of six which came before. O(words)."""
    seen: set[tuple[str, ...]] = set()
    repeated = 0
    covered_to = 0
    for start in range(len(words) - _REPEATED_RUN + 1):
        run = tuple(words[start : start + _REPEATED_RUN])
        if run in seen:
            repeated += start + _REPEATED_RUN - max(start, covered_to)
            covered_to = start + _REPEATED_RUN
        seen.add(run)
    return repeated / max(1, len(words))


def _repeated_lines(lines: list[str]) -> float:
    counts = Counter(lines)
    repeated = sum(len(line) * (count - 1) for line, count in counts.items())
    return repeated / max(1, sum(map(len, lines)))


def _longest_run(text: str) -> int:
    return max((len(found.group()) for found in re.finditer(r"([^\W_])\1{15,}", text)), default=0)


def _decoded_wrongly(word: str) -> bool:
    if word.isascii() or not _MOJIBAKE_LEAD.search(word):
        return False
    try:
        return len(word.encode("cp1252").decode()) < len(word)
    except UnicodeError:
        return False


def _word_count(text: str) -> int:
    return len(_WORD.findall(text))


def _plain(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
