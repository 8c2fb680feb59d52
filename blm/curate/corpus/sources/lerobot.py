"""`lerobot:PATH`: questions about a recorded dataset, answered from what was recorded.

    episode ─▶ facts per frame (poses, primitive, success) ─▶ questions over kinds and time ─▶ images of those frames

Frames are decoded once per episode, in order, and only up to the last one asked about. What is asked depends on the
episode's content and the seed alone, so adding or removing other episodes changes nothing. Questions about things that
the arm hides are left out (see `visibility`), unless the source's `options: {hidden_things: true}` wants them.

Reasons: bad_metadata, missing_video, unreadable_data, unreadable_video; one drop stands for an episode.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import simplejpeg

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.projection import PinholeCamera
from blm.curate.corpus.questions import QUESTION_KINDS, QuestionKind, ask
from blm.curate.corpus.questions.question import Asked
from blm.curate.corpus.questions.scene import Thing
from blm.curate.corpus.sources.recorded_scenes import (
    EpisodeScenes,
    RecordedScenes,
    SceneError,
    open_recorded_scenes,
)
from blm.curate.corpus.visibility import SeenThings
from blm.curate.episodes.segment import recorded_pictures
from blm.curate.episodes.video import VideoError, encode_clip
from blm.schemas.corpus import CorpusRecord, Media, Message, Part

_CLEARLY_UNFINISHED = 2 / 3
"""'Not done yet' is asked within this share of the time before the first success: not when it is nearly done."""
_STEP_MARGIN = 0.2
"""Share of a step at either end that no question about steps is asked in."""


@dataclass(frozen=True)
class _Planned:
    """A question as it is put about a frame."""

    kind: str
    frame: int
    asked: Asked
    shows: tuple[Thing, ...]


def read_lerobot(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of one question each, episode by episode.

    Raises:
        DatasetError: the dataset as a whole cannot be used, or has no such camera.
    """
    recorded = open_recorded_scenes(path, config.name, config.camera)
    for row in recorded.index.episodes.to_pylist():
        try:
            yield from _conversations(recorded, row, config)
        except SceneError as error:
            note = f"{path.name} episode {row['episode']}: {error}"
            yield Drop(config.name, f"episode {row['episode']}", error.reason, error.field, note)


def _conversations(
    recorded: RecordedScenes, row: dict[str, Any], config: SourceConfig
) -> Iterator[Conversation]:
    episode = recorded.episode(row)
    digest = hashlib.sha256(f"questions {config.seed} {row['identity']}".encode()).digest()
    planned = _plan(episode, config, Random(int.from_bytes(digest)))
    images = _images(recorded, row, sorted({one.frame for one in planned}), config.jpeg_quality)
    for number, one in enumerate(_visible(planned, images, episode.camera, config)):
        image, sha256 = images[one.frame]
        record = CorpusRecord(
            id=f"{config.name}-{row['episode']:06d}-{number:03d}",
            messages=(
                Message("user", (Part("image", media=0), Part("text", one.asked.text))),
                Message("assistant", (Part("text", one.asked.answer),)),
            ),
            media=(Media("image", sha256, 0, 0, extension=""),),
            source=config.name,
            licence=config.licence,
            space="physical",
            task_family=QUESTION_KINDS[one.kind].family,
            provenance=_provenance(recorded, row, one),
        )
        yield Conversation(record, (image,), group=row["identity"])


def _provenance(recorded: RecordedScenes, row: dict[str, Any], one: _Planned) -> str:
    content = {
        "episode": row["episode"],
        "episode_identity": row["identity"],
        "frame": one.frame,
        "camera": recorded.stream.name,
        "robot": row["embodiment"],
        "task": row["task"],
        "question": one.kind,
        "options": list(one.asked.options),
    }
    return json.dumps(content, sort_keys=True)


def _plan(episode: EpisodeScenes, config: SourceConfig, rng: Random) -> list[_Planned]:
    """Questions spread over time, each of the kind least asked so far that has a clear answer at its moment."""
    kinds = list(QUESTION_KINDS)
    rng.shuffle(kinds)
    asked: dict[str, set[int]] = {kind: set() for kind in kinds}
    planned = []
    for number in range(config.questions_per_episode):
        spread = int((number + rng.random()) * episode.length / config.questions_per_episode)
        for kind in sorted(kinds, key=lambda kind: len(asked[kind])):
            frame = _moment(QUESTION_KINDS[kind], episode, spread, asked[kind], rng)
            if frame is None or frame in asked[kind]:
                continue
            question = QUESTION_KINDS[kind].make(episode.at(frame), rng)
            if question is not None:
                put = ask(question, rng, config.choice_share)
                planned.append(_Planned(kind, frame, put, question.shows))
                asked[kind].add(frame)
                break
    return planned


def _visible(
    planned: list[_Planned],
    images: dict[int, tuple[bytes, str]],
    camera: PinholeCamera | None,
    config: SourceConfig,
) -> list[_Planned]:
    """Without the questions about things that something hides."""
    if camera is None or config.options.get("hidden_things"):
        return planned
    seen = SeenThings(camera)
    for frame, (image, _) in images.items():
        things = {thing.phrase: thing for one in planned if one.frame == frame for thing in one.shows}
        if things:
            seen.look(frame, simplejpeg.decode_jpeg(image), things.values())
    return [one for one in planned if not any(seen.hidden(one.frame, thing) for thing in one.shows)]


def _moment(
    kind: QuestionKind, episode: EpisodeScenes, spread: int, asked: set[int], rng: Random
) -> int | None:
    """A frame to ask about; None where this kind has none left. `asked` are those it was asked about."""
    if kind.moment == "any":
        return spread
    if kind.moment == "step":
        return _within_a_step(episode, rng)
    done, last = episode.frames_complete, episode.length - 1
    if kind.moment == "end" and (done is None or not episode.succeeded):
        return last
    if done is None:
        return None
    fresh = [frame for frame in done if frame not in asked]
    if done and not fresh:
        # What is left are frames where it is not done: the answer would be 'no' more often than 'yes'.
        return None
    if fresh and rng.random() < 0.5:
        return int(rng.choice(fresh))
    unfinished = int((done[0] if done else episode.length) * _CLEARLY_UNFINISHED)
    return rng.randrange(unfinished) if unfinished else None


def _within_a_step(episode: EpisodeScenes, rng: Random) -> int:
    """A frame of any step, away from where it begins and ends: there, a picture does not tell the steps apart."""
    starts = [start for _, start in episode.runs]
    first, stop = rng.choice(list(zip(starts, [*starts[1:], episode.length], strict=True)))
    margin = int((stop - first) * _STEP_MARGIN)
    return rng.randrange(first + margin, stop - margin)


def _images(
    recorded: RecordedScenes, row: dict[str, Any], frames: list[int], quality: int
) -> dict[int, tuple[bytes, str]]:
    """JPEG bytes and their SHA-256 by frame."""
    if not frames:
        return {}
    stream = recorded.stream
    if stream.name in row["missing_videos"]:
        raise SceneError("missing_video", stream.feature, "the video is missing")
    stills = recorded_pictures(recorded.index, row, stream, frames)
    try:
        images = encode_clip(stills, (stream.width, stream.height), quality)
    except VideoError as error:
        raise SceneError("unreadable_video", stream.feature, str(error)) from error
    return {
        frame: (image, hashlib.sha256(image).hexdigest()) for frame, image in zip(frames, images, strict=True)
    }
