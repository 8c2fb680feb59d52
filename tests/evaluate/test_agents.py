import numpy as np
import pytest

from blm.evaluate.agents import HoldStill, PolicyAgent, ReplayMean, mean_trajectory
from blm.schemas.embodiment import load_embodiment
from blm.schemas.rollout import EpisodeStart, Observation
from blm.schemas.task import load_task


def start() -> EpisodeStart:
    return EpisodeStart(load_embodiment("so100"), load_task("push-cube", "so100"), 3, "", "push the cube")


def observation(value: float) -> Observation:
    images = {"top": np.full((4, 4, 3), value, dtype=np.uint8)}
    secret = np.full(17, 99.0)
    return Observation(np.full(6, value, np.float32), images, np.zeros(7), value, "push the cube", secret)


def test_the_mean_of_unequal_episodes_holds_the_shorter_ones():
    mean = mean_trajectory([np.array([[0.0], [2.0]]), np.array([[2.0], [4.0], [6.0]])])
    assert mean.tolist() == [[1.0], [3.0], [4.0]]


def test_replay_goes_tick_by_tick_holds_the_end_and_starts_again():
    agent = ReplayMean(np.array([[1.0], [2.0]]))
    for _ in range(2):
        agent.reset(start(), observation(0))
        assert [agent.act(observation(0)).values[0] for _ in range(4)] == [1, 2, 2, 2]


def test_hold_still_keeps_the_first_pose():
    agent = HoldStill()
    agent.reset(start(), observation(5))
    assert agent.act(observation(9)).values == pytest.approx(np.full(6, 5.0))


class Spy:
    """Stands in for a policy and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def reset(self, embodiment: str) -> None:
        self.seen = [(embodiment,)]

    def act(self, images, state, instruction):
        self.seen.append((images, state, instruction))
        return state + 1


def test_a_policy_gets_pixels_state_and_instruction_and_nothing_else():
    policy = Spy()
    agent = PolicyAgent(policy, "run")
    agent.reset(start(), observation(0))
    command = agent.act(observation(7))
    assert command.values == pytest.approx(np.full(6, 8.0))
    assert policy.seen[0] == ("so100",)
    images, state, instruction = policy.seen[1]
    assert set(images) == {"top"}
    assert state.tolist() == [7.0] * 6
    assert instruction == "push the cube"


def test_pictures_of_a_real_camera_are_brought_to_the_size_of_training():
    spy = Spy()
    agent = PolicyAgent(spy, "run", image_size=(4, 2))
    agent.reset(start(), observation(0))
    stripes = np.zeros((6, 12, 3), np.uint8)
    stripes[:, :3] = 200
    large = Observation(np.zeros(6, np.float32), {"top": stripes}, np.zeros(7), 0.0, "push")
    agent.act(large)
    agent.act(observation(7))
    first, second = (shown[0]["top"] for shown in spy.seen[1:])
    assert first.tolist() == np.repeat([[200, 0, 0, 0]], 2, axis=0)[..., None].repeat(3, -1).tolist()
    assert second.shape == (2, 4, 3)
    assert stripes.shape == (6, 12, 3)
