"""Answers of generated questions, worked out in another way than the package does: plain Python on the files' rows."""

import json
import re
from math import atan2, cos, dist, radians, sin, tan

import pyarrow.parquet as pq
import pytest

NOUNS = {"box": "cube", "sphere": "ball", "peg": "peg"}


class Truth:
    """A dataset's rows and episode metadata as plain Python, read straight from its files."""

    def __init__(self, root):
        rows = [row for path in root.glob("data/*/*.parquet") for row in pq.read_table(path).to_pylist()]
        self.rows = {(row["episode_index"], row["frame_index"]): row for row in rows}
        meta = [
            row for path in root.glob("meta/episodes/*/*.parquet") for row in pq.read_table(path).to_pylist()
        ]
        self.meta = {row["episode_index"]: row for row in meta}
        self.steps = [row["subtask"] for row in pq.read_table(root / "meta/subtasks.parquet").to_pylist()]

    def places(self, episode, frame):
        """Phrase → (x, y, z) of every object, and of the goal where there is one."""
        state, meta = self.rows[episode, frame]["observation.environment_state"], self.meta[episode]
        found = {
            f"{one['colour_name']} {NOUNS[one['shape']]}": state[7 * slot : 7 * slot + 3]
            for slot, one in enumerate(json.loads(meta["blm/objects"]))
        }
        if json.loads(meta["blm/goal"]):
            found["target disc"] = state[-3:]
        return found

    def seen(self, episode, place):
        """Pixel fractions by the tilted camera of `scenes`: right is +y, up is away from −x, 30° tilted about right."""
        x, y, z = place[1], 0.41 - place[0], place[2] - 0.4
        tilt = radians(30)
        up, back = y * cos(tilt) + z * sin(tilt), -y * sin(tilt) + z * cos(tilt)
        scale = 0.5 / tan(radians(25)) / -back
        return 0.5 + x * scale, 0.5 - up * scale

    def box(self, episode, frame, phrase):
        """(left, top, right, bottom) as fractions, of the corners of an object that is turned about the vertical."""
        state = self.rows[episode, frame]["observation.environment_state"]
        for slot, one in enumerate(json.loads(self.meta[episode]["blm/objects"])):
            if f"{one['colour_name']} {NOUNS[one['shape']]}" != phrase:
                continue
            x, y, z, w, _, _, turned = state[7 * slot : 7 * slot + 7]
            turn = 2 * atan2(turned, w)
            a, b, c = one["half_size"]
            seen = [
                self.seen(
                    episode,
                    (
                        x + i * a * cos(turn) - j * b * sin(turn),
                        y + i * a * sin(turn) + j * b * cos(turn),
                        z + k * c,
                    ),
                )
                for i in (-1, 1)
                for j in (-1, 1)
                for k in (-1, 1)
            ]
            across, down = zip(*seen, strict=True)
            return min(across), min(down), max(across), max(down)
        raise AssertionError(phrase)

    def order(self, episode, first, last):
        """Names of the steps between two frames, each once for every time it began."""
        named = []
        for frame in range(first, last + 1):
            if (episode, frame) not in self.rows:
                break
            step = self.rows[episode, frame]["subtask_index"]
            if not named or named[-1] != step:
                named.append(step)
        return [self.steps[step] for step in named]

    def step_after(self, episode, frame):
        now = self.rows[episode, frame]["subtask_index"]
        while (episode, frame) in self.rows:
            if self.rows[episode, frame]["subtask_index"] != now:
                return self.steps[self.rows[episode, frame]["subtask_index"]]
            frame += 1
        return "nothing, this is the last step"


def mentioned(text, places):
    return [phrase for phrase in sorted(places, key=text.find) if phrase in text]


def expected_answer(kind, question, truth, episode, frame):
    row, meta = truth.rows[episode, frame], truth.meta[episode]
    places, tool = truth.places(episode, frame), row["observation.ee_pose"][:3]
    objects = [phrase for phrase in places if phrase != "target disc"]
    subject = (mentioned(question, objects) or [""])[0]
    if kind == "object_names":
        *most, last = sorted(f"{'an' if phrase[0] == 'o' else 'a'} {phrase}" for phrase in objects)
        return f"{', '.join(most)} and {last}" if most else last
    if kind == "object_colour":
        (meant,) = (phrase for phrase in objects if phrase.split()[1] in question)
        return meant.split()[0]
    if kind == "object_count":
        return str(len(objects))
    if kind == "object_present":
        (named,) = re.findall(r"\ban? (\w+ \w+)(?= in front| in the workspace|\?)", question)
        return "yes" if named in objects else "no"
    if kind == "action_box":
        (subject,) = re.findall(r"(?:around the|image is the|Mark the) (\w+ \w+)", question)
        return truth.box(episode, frame, subject)
    if kind == "first_step":
        named = re.split(r"first: |last: |earlier, |later, |the robot did ", question)[-1]
        so_far = truth.order(episode, 0, frame)
        if re.search(r"last: |later, |came last", question):
            so_far.reverse()
        return next(step for step in so_far if re.search(rf"\b{step}\b", named))
    if kind == "remaining_steps":
        rest = truth.order(episode, frame, 10**6)[1:]
        return ", ".join(rest) or "nothing, this is the last step"
    if kind == "image_side":
        return "left" if truth.seen(episode, places[subject])[0] < 0.5 else "right"
    if kind == "gripper_side":
        return "left" if places[subject][1] > tool[1] else "right"
    if kind == "nearer":
        ordered = sorted(mentioned(question, places), key=lambda phrase: dist(places[phrase], tool))
        assert len(ordered) == 2
        return f"the {ordered[0] if 'nearer' in question else ordered[1]}"
    if kind == "pixel_point":
        return truth.seen(episode, places[subject])
    if kind == "goal_distance":
        return 100 * dist(places[subject][:2], places["target disc"][:2])
    if kind == "step_now":
        return truth.steps[row["subtask_index"]]
    if kind == "next_step":
        return truth.step_after(episode, frame)
    if kind == "complete_now":
        return "yes" if row["next.success"] else "no"
    if kind == "outcome":
        at_the_end = (episode, frame + 1) not in truth.rows
        return "yes" if (meta["blm/success"] if at_the_end else row["next.success"]) else "no"
    return {"robot_name": "SO-100", "robot_joints": "5"}[kind]


def agrees(kind, answer, expected):
    if kind in ("pixel_point", "action_box"):
        numbers = [int(number) for number in re.findall(r"\d+", answer)]
        return numbers == pytest.approx([1000 * share for share in expected], abs=0.51)
    if kind == "goal_distance":
        return int(answer.removesuffix(" cm")) == pytest.approx(expected, abs=0.501)
    return answer == expected


def asked(record):
    """Question, answer (of a letter: the option it stands for), and what is known about the question."""
    origin = json.loads(record["provenance"])
    question = record["messages"][0]["content"][1]["text"]
    answer = record["messages"][1]["content"][0]["text"]
    if origin["options"]:
        lettered = dict(re.findall(r"^([A-H])\. (.+)$", question, re.M))
        assert list(lettered.values()) == origin["options"]
        answer = lettered[answer]
    return question, answer, origin
