"""Visual variety: what about a scene's look may differ from episode to episode, and what one episode drew.

Everything is drawn from the episode's seed through a random stream of its own, so a seed places the task's objects
the same with and without variety. No simulator is imported here: the command line reads `Variety`.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field

from blm.schemas.errors import UsageError
from blm.schemas.yaml_model import FrozenModel

MAX_DISTRACTORS = 3


class Variety(FrozenModel):
    """What varies between episodes; nothing by default.

    Attributes:
        lighting: direction, brightness and warmth of the key light, and the ambient light.
        colours: table, sky and robot; objects keep their colour's name.
        cameras: fixed cameras' positions, aims and fields of view; a wrist camera's mounting.
        distractors: at most this many objects that the task is not about, at least one of them; 0 for none.
    """

    lighting: bool = False
    colours: bool = False
    cameras: bool = False
    distractors: int = Field(default=0, ge=0, le=MAX_DISTRACTORS)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `all`, `none`, or names with commas between, such as `lighting,distractors=2`.

        `distractors` without a number means up to three.

        Raises:
            UsageError: an unknown name or a number that is not allowed.
        """
        if text.strip() == "none":
            return cls()
        if text.strip() == "all":
            return cls(lighting=True, colours=True, cameras=True, distractors=MAX_DISTRACTORS)
        chosen: dict[str, bool | int] = {}
        for part in text.split(","):
            name, equals, number = (piece.strip() for piece in part.partition("="))
            if name not in cls.model_fields or (equals and name != "distractors"):
                raise _not_understood(text, part)
            chosen[name] = True
            if name == "distractors":
                chosen[name] = _distractors(text, part, number) if equals else MAX_DISTRACTORS
        return cls.model_validate(chosen)

    def __str__(self) -> str:
        """The text that `parse` reads as this."""
        names = [name for name in ("lighting", "colours", "cameras") if getattr(self, name)]
        if self.distractors:
            names.append(f"distractors={self.distractors}")
        return ",".join(names) or "none"


def stream(seed: int, what: str) -> np.random.Generator:
    """The random numbers that decide on `what` in the episode of a seed; each `what` has its own."""
    return np.random.Generator(np.random.PCG64([seed, int.from_bytes(what.encode())]))


def _distractors(text: str, part: str, number: str) -> int:
    if number not in {str(count) for count in range(MAX_DISTRACTORS + 1)}:
        raise _not_understood(text, part)
    return int(number)


def _not_understood(text: str, part: str) -> UsageError:
    return UsageError(
        f"--variety {text}: '{part.strip()}' is not understood.",
        f"Use all, none, or some of lighting, colours, cameras, distractors=1..{MAX_DISTRACTORS}, "
        "with commas between.",
    )
