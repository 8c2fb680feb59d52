"""What is known about one recorded frame, in the words that questions use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product

import numpy as np

from blm.curate.corpus.projection import PinholeCamera, rotation_matrix
from blm.schemas.embodiment import Embodiment

_NOUNS = {"sphere": "ball", "peg": "peg", "bin": "tray"}
_CUBE_TOLERANCE = 1.05
_GOAL_NAMES = {"disc": "target disc", "point": "target marker"}


@dataclass(frozen=True)
class ObjectKind:
    """What an episode's metadata say about the object in a slot.

    `half_size` in metres. `role` is 'task', or 'distractor' for something that the task is not about.
    """

    name: str
    shape: str
    colour: str
    half_size: tuple[float, float, float]
    role: str = "task"

    @property
    def noun(self) -> str:
        """'cube', 'box', 'ball', 'peg' or 'tray'; an unknown shape names itself."""
        if self.shape == "box":
            return "cube" if max(self.half_size) <= _CUBE_TOLERANCE * min(self.half_size) else "box"
        return _NOUNS.get(self.shape, self.shape)

    @property
    def phrase(self) -> str:
        """'blue cube'."""
        return f"{self.colour} {self.noun}"


@dataclass(frozen=True)
class Thing:
    """An object at a moment: `position` (3,) of its centre, metres, and `quaternion` (4,), w first; base frame."""

    kind: ObjectKind
    position: np.ndarray
    quaternion: np.ndarray | None = None

    @property
    def phrase(self) -> str:
        return self.kind.phrase

    @property
    def corners(self) -> np.ndarray | None:
        """(8, 3) corners of the box around it, metres, base frame; None for balls, or where it is not known."""
        if self.quaternion is None or self.kind.shape == "sphere":
            return None
        signs = np.array(list(product((-1, 1), repeat=3)))
        w, x, y, z = (float(value) for value in self.quaternion)
        return self.position + signs * self.kind.half_size @ rotation_matrix((w, x, y, z)).T


@dataclass(frozen=True)
class GoalPlace:
    """Where the object should go; `position` (3,) metres, base frame."""

    shape: str
    position: np.ndarray

    @property
    def phrase(self) -> str:
        return _GOAL_NAMES.get(self.shape, "target")


@dataclass(frozen=True)
class Scene:
    """One frame.

    Attributes:
        robot: the embodiment.
        instruction: the wording the robot was given.
        things: objects in slot order; empty where poses are not recorded.
        goal: None where there is none, or it is not recorded.
        tool: (3,) tool point, metres, base frame; None where not recorded.
        camera: of the image; None where it rides on the robot or its pose is not recorded.
        step, next_step: primitive under way ('' if unknown) and the one after it (None at the last).
        earlier, later: primitives before and after the one under way, each once for every time it was carried out.
        steps: every primitive the dataset names.
        complete: whether the task's criteria hold now; None where not recorded.
        succeeded: how the episode ended; None where not recorded.
        last: whether it ended with this frame.
    """

    robot: Embodiment
    instruction: str
    things: tuple[Thing, ...] = ()
    goal: GoalPlace | None = None
    tool: np.ndarray | None = None
    camera: PinholeCamera | None = None
    step: str = ""
    next_step: str | None = None
    earlier: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    complete: bool | None = None
    succeeded: bool | None = None
    last: bool = False

    def sees(self, position: np.ndarray) -> bool:
        """Whether a point lies within the image. Something may still stand in front of it."""
        return self.camera is not None and self.camera.thousandths(position) is not None

    @property
    def all_seen(self) -> bool:
        """Whether there are objects, and the centre of each lies within the image."""
        return bool(self.things) and all(self.sees(thing.position) for thing in self.things)

    def named(self) -> list[Thing]:
        """The objects within the image that colour and noun tell from all others."""
        phrases = [thing.phrase for thing in self.things]
        return [t for t in self.things if phrases.count(t.phrase) == 1 and self.sees(t.position)]


def read_objects(text: str) -> tuple[ObjectKind, ...]:
    """Objects in slot order from an episode's `blm/objects` JSON.

    Raises:
        ValueError: the text is not such a list.
    """
    try:
        return tuple(
            ObjectKind(
                str(row["name"]),
                str(row["shape"]),
                str(row["colour_name"]),
                tuple(float(side) for side in row["half_size"]),  # type: ignore[arg-type]
                str(row.get("role", "task")),
            )
            for row in json.loads(text)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"object descriptions lack or garble {error}") from error


def read_goal_shape(text: str) -> str | None:
    """The goal's shape from an episode's `blm/goal` JSON; None where the task has no goal.

    Raises:
        ValueError: the text is not such a description.
    """
    goal = json.loads(text)
    if goal is None:
        return None
    if not isinstance(goal, dict) or "shape" not in goal:
        raise ValueError("the goal's description has no shape")
    return str(goal["shape"])
