"""2,000 questions about episodes of the simulator, each answer worked out again from the recorded state."""

import json
from collections import Counter
from itertools import product
from math import radians, tan

import pytest
from scipy.spatial.transform import Rotation

from blm.collect.session import CollectConfig, collect
from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation
from blm.curate.corpus.questions import QUESTION_KINDS
from blm.curate.corpus.sources.lerobot import read_lerobot
from tests.curate.corpus.truth import Truth, agrees, asked, expected_answer

SIGNS = list(product((-1, 1), repeat=3))


class SimulatedTruth(Truth):
    """Sees through the episode's own camera: a rotation by SciPy, and similar triangles."""

    def seen(self, episode, place):
        cameras = json.loads(self.meta[episode]["blm/cameras"])
        camera = next(one for one in cameras if one["mount"] is None)
        w, x, y, z = camera["quaternion"]
        offset = [a - b for a, b in zip(place, camera["position"], strict=True)]
        right, up, back = Rotation.from_quat([x, y, z, w]).inv().apply(offset)
        half = tan(radians(camera["vertical_fov_deg"]) / 2) * -back
        return 0.5 + right / (2 * half * camera["width"] / camera["height"]), 0.5 - up / (2 * half)

    def box(self, episode, frame, phrase):
        """As for turned objects, but for tilted ones too: pushed cubes tip a little."""
        state = self.rows[episode, frame]["observation.environment_state"]
        for slot, one in enumerate(json.loads(self.meta[episode]["blm/objects"])):
            if f"{one['colour_name']} cube" != phrase:
                continue
            place, (w, x, y, z) = state[7 * slot : 7 * slot + 3], state[7 * slot + 3 : 7 * slot + 7]
            corners = [[i * side for i, side in zip(signs, one["half_size"], strict=True)] for signs in SIGNS]
            turned = Rotation.from_quat([x, y, z, w]).apply(corners) + place
            across, down = zip(*(self.seen(episode, corner) for corner in turned), strict=True)
            return min(across), min(down), max(across), max(down)
        raise AssertionError(phrase)


@pytest.mark.slow
def test_two_thousand_answers_agree_with_the_simulator(tmp_path):
    checked, wrong = Counter(), []
    for task in ("push-cube", "stack-cube"):
        root = tmp_path / task
        collect(CollectConfig(robot="so100", task=task, episodes=4, seed=3, output=root, image_size=64))
        truth = SimulatedTruth(root)
        config = SourceConfig(name="d", licence="MIT", questions_per_episode=280)
        for conversation in read_lerobot(root, config):
            assert isinstance(conversation, Conversation)
            question, answer, origin = asked(conversation.record.to_row())
            kind, episode, frame = origin["question"], origin["episode"], origin["frame"]
            question = question.split("\nA. ")[0]
            expected = expected_answer(kind, question, truth, episode, frame)
            checked[kind] += 1
            others = [option for option in origin["options"] if option != answer]
            if not agrees(kind, answer, expected) or any(agrees(kind, one, expected) for one in others):
                wrong.append((task, episode, frame, question, answer, expected))
    assert wrong == []
    assert checked.total() >= 2000
    assert set(checked) == set(QUESTION_KINDS)
