"""The agents that evaluation puts in the loop: a trained policy, and two baselines that see nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from blm.schemas.rollout import Command, EpisodeStart, Observation


class ActingPolicy(Protocol):
    """What evaluation needs of a policy: pixels, proprioception and the instruction in, axis targets out."""

    def reset(self, embodiment: str) -> None: ...

    def act(self, images: Mapping[str, np.ndarray], state: np.ndarray, instruction: str) -> np.ndarray: ...


class PolicyAgent:
    """Lets a trained policy drive. It is given images, measured axis values and the instruction, nothing else."""

    def __init__(self, policy: ActingPolicy, name: str, image_size: tuple[int, int] | None = None) -> None:
        """Images are brought to `image_size` (width, height), where it is given, as curation brings them."""
        self._policy = policy
        self._image_size = image_size
        self.operator = f"policy:{name}"
        self._ticks = 0

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self._policy.reset(start.embodiment.name)
        self._ticks = 0

    def act(self, observation: Observation) -> Command:
        self._ticks += 1
        images = observation.images
        if self._image_size is not None:
            images = {name: _averaged(image, self._image_size) for name, image in images.items()}
        return Command(self._policy.act(images, observation.state, observation.instruction))

    def metrics(self) -> Mapping[str, Any]:
        return {"ticks": self._ticks}


def policy_agent(run: Path, robot: str | None = None) -> tuple[PolicyAgent, int]:
    """The agent of a trained run, and the side of its images in pixels.

    Cameras may have another size: a real one has the sizes it has.

    Raises:
        CheckpointError: there is no trained policy in `run`.
        UnknownNameError: it was not trained on `robot`.
    """
    from blm.train.stage2 import load_policy

    policy = load_policy(run)
    if robot is not None:
        policy.reset(robot)
    return PolicyAgent(policy, run.name, policy.image_size), policy.image_size[0]


def _averaged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8 of a size (width, height): means over areas, whatever becomes of the sides' ratio."""
    from PIL import Image

    if (image.shape[1], image.shape[0]) == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


class HoldStill:
    """Baseline: command the pose the episode began in, for ever."""

    operator = "baseline:hold-still"

    def __init__(self) -> None:
        self._pose = np.zeros(0)

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self._pose = np.array(observation.state, dtype=np.float64)

    def act(self, observation: Observation) -> Command:
        return Command(self._pose)

    def metrics(self) -> Mapping[str, Any]:
        return {}


class ReplayMean:
    """Baseline: play back the mean of the training episodes' actions, tick by tick, then hold the last one."""

    operator = "baseline:replay-mean"

    def __init__(self, trajectory: np.ndarray) -> None:
        """`trajectory` is (T, A) in axis units; see `mean_trajectory`."""
        self._trajectory = trajectory
        self._tick = 0

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self._tick = 0

    def act(self, observation: Observation) -> Command:
        values = self._trajectory[min(self._tick, len(self._trajectory) - 1)]
        self._tick += 1
        return Command(values)

    def metrics(self) -> Mapping[str, Any]:
        return {}


def mean_trajectory(episodes: list[np.ndarray]) -> np.ndarray:
    """Mean action per tick over episodes [(T_i, A)] of different lengths, shape (max T, A).

    A shorter episode counts with its last action held, as a robot would hold it.
    """
    longest = max(len(actions) for actions in episodes)
    padded = [
        np.concatenate([actions, np.repeat(actions[-1:], longest - len(actions), axis=0)])
        for actions in episodes
    ]
    return np.mean(np.stack(padded), axis=0)
