"""Answers of generated questions against the recorded state, computed here in another way."""

import io
import json
import re
import shutil
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.questions import QUESTION_KINDS
from blm.curate.corpus.sources.lerobot import read_lerobot
from blm.schemas.errors import DatasetError
from tests.curate.corpus.scenes import record_scenes
from tests.curate.corpus.truth import Truth, agrees, asked, expected_answer, mentioned


def test_every_answer_agrees_with_the_recorded_state(corpus, stacking, pushing):
    truths = {"stacking": Truth(stacking), "pushing": Truth(pushing)}
    checked = Counter()
    for record in pq.read_table(corpus / "records.parquet").to_pylist():
        question, answer, origin = asked(record)
        truth, kind = truths[record["source"]], origin["question"]
        expected = expected_answer(
            kind, question.split("\nA. ")[0], truth, origin["episode"], origin["frame"]
        )
        assert agrees(kind, answer, expected), (question, answer, expected)
        assert record["task_family"] == QUESTION_KINDS[kind].family
        if origin["options"]:
            others = [option for option in origin["options"] if option != answer]
            assert not any(agrees(kind, option, expected) for option in others)
        checked[kind] += 1
    assert checked.total() >= 600
    assert set(checked) == set(QUESTION_KINDS)
    assert min(checked.values()) >= 10


def test_answers_are_true_among_distractors_too(cluttered):
    """No noun that two things share is asked about alone, and only what the task is about has a way to the goal."""
    truth, checked, distances = Truth(cluttered), Counter(), set()
    for conversation in read(cluttered, questions_per_episode=150):
        question, answer, origin = asked(conversation.record.to_row())
        question, kind = question.split("\nA. ")[0], origin["question"]
        expected = expected_answer(kind, question, truth, origin["episode"], origin["frame"])
        assert agrees(kind, answer, expected), (question, answer, expected)
        checked[kind] += 1
        if kind == "goal_distance":
            distances |= set(mentioned(question, truth.places(origin["episode"], origin["frame"])))
    assert set(checked) == set(QUESTION_KINDS)
    assert checked["object_count"] >= 5
    assert distances == {"blue cube", "target disc"}


def test_letters_and_wordings_vary(corpus):
    letters, wordings, choices = Counter(), {}, 0
    records = pq.read_table(corpus / "records.parquet").to_pylist()
    for record in records:
        question, _, origin = asked(record)
        choices += bool(origin["options"])
        if len(origin["options"]) == 4:
            letters[record["messages"][1]["content"][0]["text"]] += 1
        wordings.setdefault(origin["question"], set()).add(question.split("\n")[0])
    assert 0.4 < choices / len(records) < 0.6
    for letter in "ABCD":
        # Four standard deviations of a fair draw.
        assert abs(letters[letter] / letters.total() - 0.25) < 4 * (0.25 * 0.75 / letters.total()) ** 0.5
    assert all(len(found) >= 3 for found in wordings.values())


def test_yes_and_no_are_balanced_where_the_frame_is_free_to_choose(corpus):
    answers = Counter(
        answer
        for record in pq.read_table(corpus / "records.parquet").to_pylist()
        for _, answer, origin in [asked(record)]
        # A third of the episodes fail, and have no frame for 'yes'.
        if origin["question"] == "complete_now" and origin["episode"] % 3 != 2
    )
    assert 0.3 < answers["yes"] / answers.total() < 0.7


def test_no_answer_is_right_more_often_than_it_must_be(stacking):
    """Of questions with two answers; each is asked thirty times or more, so that a fair draw stays within bounds."""
    answers: dict[str, Counter] = {}
    for number in range(2):
        for conversation in read(stacking, questions_per_episode=60, seed=number):
            question, answer, origin = asked(conversation.record.to_row())
            kind = origin["question"]
            if kind == "first_step":
                answer = "first" if re.search(r"first: |earlier, |came first", question) else "last"
            # Attempts that failed have no frame for 'yes'.
            if origin["episode"] % 3 != 2 or kind not in ("complete_now", "outcome"):
                answers.setdefault(kind, Counter())[answer] += 1
    for kind in ("first_step", "outcome", "complete_now", "image_side", "gripper_side", "object_present"):
        (_, most), (_, least) = answers[kind].most_common()
        assert most + least >= 30
        assert least / (most + least) > 0.3, (kind, answers[kind])


def test_yes_stays_as_frequent_as_no_when_more_is_asked_than_there_are_frames(stacking):
    answers: Counter[str] = Counter()
    for conversation in read(stacking, questions_per_episode=400):
        _, answer, origin = asked(conversation.record.to_row())
        if origin["question"] in ("outcome", "complete_now") and origin["episode"] % 3 != 2:
            answers[answer] += 1
    assert answers.total() > 60
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def test_questions_about_steps_are_asked_well_within_each_step_equally(stacking):
    truth, counts = Truth(stacking), Counter()
    for conversation in read(stacking, questions_per_episode=60):
        _, answer, origin = asked(conversation.record.to_row())
        episode, frame = origin["episode"], origin["frame"]
        if QUESTION_KINDS[origin["question"]].moment == "step":
            before, after = (truth.order(episode, frame, frame + 1), truth.order(episode, frame - 1, frame))
            assert len(before) == len(after) == 1 or frame == 0
        if origin["question"] == "step_now":
            counts[answer] += 1
    assert max(counts.values()) < 3 * min(counts.values())


def test_wrong_options_are_near_misses(cluttered):
    truth = Truth(cluttered)
    for conversation in read(cluttered, questions_per_episode=150):
        _, answer, origin = asked(conversation.record.to_row())
        others = [option for option in origin["options"] if option != answer]
        places = truth.places(origin["episode"], origin["frame"])
        if origin["question"] == "object_names":
            right = answer.replace(" and ", ", ").split(", ")
            for option in others:
                kept = (Counter(right) & Counter(option.replace(" and ", ", ").split(", "))).total()
                assert len(right) - 2 <= kept < len(right)
        if origin["question"] == "object_colour" and others:
            seen = {phrase.split()[0] for phrase in places if phrase != "target disc"} - {answer}
            assert len(seen & set(others)) == min(len(seen), 3)


def read(path, **settings) -> list[Any]:
    # The synthetic pictures do not show the things that were recorded.
    config = SourceConfig(name="d", licence="MIT", options={"hidden_things": True}, **settings)
    return list(read_lerobot(path, config))


def test_questions_depend_on_seed_and_episode_alone(stacking, tmp_path):
    first = read(stacking)
    assert read(stacking) == first
    assert [c.record.messages for c in read(stacking, seed=1)] != [c.record.messages for c in first]
    fewer = read(record_scenes(tmp_path / "fewer", episodes=2))
    assert [c.record.messages for c in fewer] == [c.record.messages for c in first[: len(fewer)]]


def test_a_recording_with_two_slots_and_no_contacts_is_asked_the_same(pushing, tmp_path):
    old = as_recorded_before(pushing, tmp_path / "pushing")
    assert [c.record.messages for c in read(old)] == [c.record.messages for c in read(pushing)]


def as_recorded_before(root, copy):
    """A copy of a dataset as the first version of the recorder wrote it."""
    shutil.copytree(root, copy)
    for path in copy.glob("data/*/*.parquet"):
        table = pq.read_table(path).drop_columns(["observation.gripper_contact"])
        place = table.column_names.index("observation.environment_state")
        wide = np.array(table["observation.environment_state"].to_pylist(), dtype=np.float32)
        narrow = np.ascontiguousarray(np.hstack([wide[:, :14], wide[:, -3:]]))
        column = pa.FixedSizeListArray.from_arrays(pa.array(narrow.ravel()), 17)
        pq.write_table(table.set_column(place, "observation.environment_state", column), path)
    info = json.loads((copy / "meta/info.json").read_text())
    del info["features"]["observation.gripper_contact"]
    state = info["features"]["observation.environment_state"]
    state["shape"], state["names"] = [17], [*state["names"][:14], *state["names"][-3:]]
    (copy / "meta/info.json").write_text(json.dumps(info))
    return copy


def test_frames_span_the_episode_and_images_are_of_them(stacking):
    conversations = read(stacking, questions_per_episode=12)
    frames = [json.loads(c.record.provenance)["frame"] for c in conversations[:12]]
    assert len(conversations) == 6 * 12
    assert min(frames) < 6
    assert max(frames) >= 18
    by_frame = {}
    for conversation, frame in zip(conversations[:12], frames, strict=True):
        assert by_frame.setdefault(frame, conversation.media) == conversation.media
        picture = Image.open(io.BytesIO(conversation.media[0]))
        assert (picture.format, picture.size) == ("JPEG", (64, 64))
        # synthetic pictures are a shaded background with one square
        assert np.asarray(picture).std() > 5
    # The synthetic square moves less than a pixel between some neighbouring frames; any others differ.
    pairs = [(a, b) for a in by_frame for b in by_frame if b - a > 1]
    assert pairs
    assert [pair for pair in pairs if by_frame[pair[0]] == by_frame[pair[1]]] == []


def test_a_mounted_camera_is_asked_nothing_about_places(stacking):
    kinds = {json.loads(c.record.provenance)["question"] for c in read(stacking, camera="wrist")}
    told = {"step_now", "first_step", "next_step", "remaining_steps", "complete_now", "outcome"}
    assert kinds == told | {"robot_name", "robot_joints"}


def test_an_unknown_camera_is_named(stacking):
    with pytest.raises(DatasetError, match=r"camera 'side' not found.*top, wrist"):
        read(stacking, camera="side")


def test_a_broken_video_drops_its_episode_with_a_reason(tmp_path):
    root = record_scenes(tmp_path / "d", episodes=2)
    videos = sorted(root.glob("videos/observation.images.top/*/*"))
    videos[0].write_bytes(b"not a video")
    items = read(root, questions_per_episode=4)
    drops = [item for item in items if isinstance(item, Drop)]
    assert [(drop.row, drop.reason, drop.source) for drop in drops] == [
        ("episode 0", "unreadable_video", "d")
    ]
    assert sum(isinstance(item, Conversation) for item in items) == 4


def test_broken_metadata_drop_the_episode_and_name_the_field(tmp_path):
    root = record_scenes(tmp_path / "d", episodes=2)
    path = next(iter(root.glob("meta/episodes/*/*.parquet")))
    table = pq.read_table(path)
    column = table.column_names.index("blm/objects")
    pq.write_table(
        table.set_column(column, "blm/objects", [["[{}]", *table["blm/objects"].to_pylist()[1:]]]), path
    )
    drops = [item for item in read(root) if isinstance(item, Drop)]
    assert [(drop.row, drop.reason, drop.field) for drop in drops] == [
        ("episode 0", "bad_metadata", "blm/objects")
    ]
