"""The stages every conversation passes, in order; each keeps it, perhaps changed, or drops it with a reason.

    read ─▶ licence ─▶ validate ─▶ normalise ─▶ quality ─▶ language ─▶ mask ─▶ dedup ─▶ split ─▶ written

Reasons: licence: licence. Validate: bad_media, unsupported_media, media_too_small, media_too_large, polyglot_media,
too_many_media.
Normalise: bad_roles, empty_text, text_too_long. Quality: the names of its rules. Language: wrong_language.
Dedup: duplicate. Every stage is linear in what passes it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from blm.curate.corpus.config import CorpusConfig, Limits
from blm.curate.corpus.conversation import Conversation, Drop, content_digest, split_group
from blm.curate.corpus.language import LANGUAGE_EXTRA, load_identifier, unwanted_language
from blm.curate.corpus.licence import licence_objection
from blm.curate.corpus.media import ImageCheck, MediaError
from blm.curate.corpus.pii import mask_personal_data
from blm.curate.corpus.quality import objection
from blm.curate.corpus.text import clean_text, escape_control_tokens
from blm.curate.episodes.splits import split_of
from blm.schemas.corpus import CorpusRecord, Media, Message, Part

Stage = Callable[[Conversation], Conversation | Drop]
READ = "read"


@dataclass
class StageReport:
    """How many conversations came into a stage, and how many it dropped, by reason.

    `changed` counts what was changed in those it kept, by what it was; `note` is for a person.
    """

    name: str
    inputs: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    note: str = ""

    @property
    def kept(self) -> int:
        return self.inputs - self.dropped.total()

    def add(self, other: StageReport) -> None:
        """Count what another report of this stage counted, too."""
        self.inputs += other.inputs
        self.dropped.update(other.dropped)
        self.changed.update(other.changed)
        self.note = other.note or self.note

    def take(self) -> StageReport:
        """What was counted since the last time."""
        taken = replace(self, dropped=Counter(self.dropped), changed=Counter(self.changed))
        self.inputs = 0
        self.dropped.clear()
        self.changed.clear()
        return taken


def licence_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """Only licences that the build allows. O(patterns)."""

    def licence(conversation: Conversation) -> Conversation | Drop:
        problem = licence_objection(conversation.record.licence, config.licences)
        return _drop(conversation.record, "licence", "licence", problem) if problem else conversation

    return licence


def validate_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """Every image decodes and lies within the limits; fills in its width, height and extension.

    O(pixels); a content is decoded once, and remembered in a set entry.
    """
    check = ImageCheck(config.limits)

    def validate(conversation: Conversation) -> Conversation | Drop:
        record, contents = conversation.record, conversation.media
        if len(contents) > config.limits.max_media:
            return _drop(record, "too_many_media", "media", f"{len(contents)} images")
        media: list[Media] = []
        for number, (one, content) in enumerate(zip(record.media, contents, strict=True)):
            try:
                image = check(one.sha256, content)
            except MediaError as error:
                return _drop(record, error.reason, f"media[{number}]", str(error))
            media.append(replace(one, width=image.width, height=image.height, extension=image.extension))
        return conversation._replace(record=replace(record, media=tuple(media)))

    return validate


def normalise_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """One form for all: clean text without control tokens, turns that alternate, an answer last. O(characters)."""

    def normalise(conversation: Conversation) -> Conversation | Drop:
        record = conversation.record
        messages = _joined(record.messages)
        cleaned, transforms = [], set()
        for index, message in enumerate(messages):
            parts = _clean_parts(message, transforms)
            if not parts or (message.role != "user" and not any(part.kind == "text" for part in parts)):
                return _drop(record, "empty_text", f"messages[{index}]", f"the {message.role} says nothing")
            cleaned.append(Message(message.role, parts))
        roles = [message.role for message in cleaned]
        if not _in_turns(roles):
            return _drop(record, "bad_roles", "messages", f"turns are {', '.join(roles)[:200] or 'absent'}")
        problem = _too_long(cleaned, config.limits)
        if problem:
            return _drop(record, "text_too_long", "messages", problem)
        provenance = _with_transforms(record.provenance, sorted(transforms))
        return conversation._replace(record=replace(record, messages=tuple(cleaned), provenance=provenance))

    return normalise


def quality_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """No rule of `quality` objects. O(characters)."""

    def quality(conversation: Conversation) -> Conversation | Drop:
        found = objection(conversation.record, config.quality)
        return _drop(conversation.record, found[0], "messages", found[1]) if found else conversation

    return quality


def language_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """In a language that the build wants; texts too short to tell pass. O(characters)."""
    identify = load_identifier() if config.languages else None
    if config.languages and identify is None:
        report.note = (
            f"by script alone: no language identifier is installed (pip install 'blm[{LANGUAGE_EXTRA}]')"
        )

    def language(conversation: Conversation) -> Conversation | Drop:
        if not config.languages:
            return conversation
        record = conversation.record
        text = "\n".join(part.text for one in record.messages for part in one.content if part.kind == "text")
        if found := unwanted_language(text, config.languages, identify):
            return _drop(
                record, "wrong_language", "messages", f"'{found}', not {', '.join(config.languages)}"
            )
        return conversation

    return language


def mask_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """Personal data and keys replaced by what they are; drops nothing. O(characters)."""

    def mask(conversation: Conversation) -> Conversation | Drop:
        record, found = conversation.record, Counter[str]()
        messages = tuple(_masked(message, found) for message in record.messages)
        if not found:
            return conversation
        report.changed.update(found)
        provenance = _with_transforms(record.provenance, [f"masked_{kind}" for kind in sorted(found)])
        return conversation._replace(record=replace(record, messages=messages, provenance=provenance))

    return mask if config.mask_personal_data else lambda conversation: conversation


def dedup_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """Of conversations that say and show exactly the same, the first is kept.

    O(characters); memory: 16 bytes and a set entry each.
    """
    seen: dict[bytes, str] = {}

    def dedup(conversation: Conversation) -> Conversation | Drop:
        record = conversation.record
        digest = bytes.fromhex(content_digest(record))[:16]
        if digest in seen:
            drop = _drop(record, "duplicate", "", f"the same as {seen[digest]}")
            return replace(drop, partner=seen[digest])
        seen[digest] = record.id
        return conversation

    return dedup


def split_stage(config: CorpusConfig, report: StageReport) -> Stage:
    """Train, val or test by a hash of the content's group (see `Conversation`), for an episode as in Stage II. O(1)."""

    def split(conversation: Conversation) -> Conversation | Drop:
        name = split_of(split_group(conversation), config.seed, config.fractions)
        return conversation._replace(record=replace(conversation.record, split=name))

    return split


CLEANING_STAGES: dict[str, Callable[[CorpusConfig, StageReport], Stage]] = {
    "licence": licence_stage,
    "validate": validate_stage,
    "normalise": normalise_stage,
}
"""Those that come first, look at one conversation at a time, and need its media."""
JUDGING_STAGES: dict[str, Callable[[CorpusConfig, StageReport], Stage]] = {
    "quality": quality_stage,
    "language": language_stage,
    "mask": mask_stage,
}
"""Those that look at one conversation's texts at a time, in the order in which they are applied."""
ORDERED_STAGES: dict[str, Callable[[CorpusConfig, StageReport], Stage]] = {
    "dedup": dedup_stage,
    "split": split_stage,
}
"""Those that come after, and see all conversations in order."""
STAGES = CLEANING_STAGES | JUDGING_STAGES | ORDERED_STAGES


def _drop(record: CorpusRecord, reason: str, field: str, note: str) -> Drop:
    return Drop(record.source, record.id, reason, field, note)


def _joined(messages: Iterable[Message]) -> list[Message]:
    """Messages of one role that follow each other become one, with an empty line between."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            content = (*joined[-1].content, Part("text", "\n\n"), *message.content)
            joined[-1] = Message(message.role, content)
        else:
            joined.append(message)
    return joined


def _clean_parts(message: Message, transforms: set[str]) -> tuple[Part, ...]:
    """Neighbouring texts made one, cleaned and escaped; empty ones left out."""
    merged: list[Part] = []
    for part in message.content:
        if part.kind == "text" and merged and merged[-1].kind == "text":
            merged[-1] = Part("text", merged[-1].text + part.text)
        else:
            merged.append(part)
    parts = []
    for part in merged:
        if part.kind != "text":
            parts.append(part)
            continue
        clean = clean_text(part.text)
        escaped = escape_control_tokens(clean)
        if clean != part.text:
            transforms.add("cleaned")
        if escaped != clean:
            transforms.add("escaped_control_tokens")
        if escaped:
            parts.append(Part("text", escaped))
    return tuple(parts)


def _masked(message: Message, found: Counter[str]) -> Message:
    parts = []
    for part in message.content:
        if part.kind == "text":
            text, here = mask_personal_data(part.text)
            found.update(here)
            part = replace(part, text=text) if here else part
        parts.append(part)
    return Message(message.role, tuple(parts))


def _in_turns(roles: list[str]) -> bool:
    """Perhaps one system message, then user and assistant in turns, an answer last."""
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return bool(turns) and turns == ["user", "assistant"] * (len(turns) // 2)


def _too_long(messages: list[Message], limits: Limits) -> str:
    characters = sum(len(part.text) for message in messages for part in message.content)
    return f"{characters} characters, more than {limits.max_characters}" * (
        characters > limits.max_characters
    )


def _with_transforms(provenance: str, transforms: list[str]) -> str:
    if not transforms:
        return provenance
    known = json.loads(provenance)
    return json.dumps(known | {"transforms": [*known.get("transforms", []), *transforms]}, sort_keys=True)
