"""Named held-out axes: what a build keeps away from training on purpose, to measure how far a policy generalises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Self

from pydantic import Field, model_validator

from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.yaml_model import FrozenModel

Range = tuple[float, float]

_BY_VALUE = ("dataset", "embodiment", "task")


class Region(FrozenModel):
    """Where an object starts: inclusive ranges, metres, in the robot's base frame."""

    object: str
    x: Range | None = None
    y: Range | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.x is None and self.y is None:
            raise ValueError("give a range of x, of y, or of both")
        for key, limits in (("x", self.x), ("y", self.y)):
            if limits is not None and limits[0] > limits[1]:
                raise ValueError(f"{key}: the lower end ({limits[0]}) is above the upper end ({limits[1]})")
        return self

    def holds(self, x: float, y: float) -> bool:
        """Whether a position, metres in the base frame, lies within."""
        return all(
            limits is None or limits[0] <= place <= limits[1] for place, limits in ((x, self.x), (y, self.y))
        )


class HeldOut(FrozenModel):
    """Episodes that go to the split `test-<name>`: those for which everything given here holds.

    `wording` is a pattern for the whole instruction, with * and ?, blind to upper case and repeated blanks.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
    dataset: str | None = None
    embodiment: str | None = None
    task: str | None = None
    wording: str | None = None
    region: Region | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if all(getattr(self, key) is None for key in (*_BY_VALUE, "wording", "region")):
            raise ValueError(f"give at least one of {', '.join(_BY_VALUE)}, wording, region")
        return self

    @property
    def split(self) -> str:
        return f"test-{self.name}"

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether an episode (`dataset`, `embodiment`, `task`, `instruction`, `object_starts`) is held out by this.

        Raises:
            DatasetError: a region is asked for and the episode's dataset does not record where objects start.
        """
        for key in _BY_VALUE:
            wanted = getattr(self, key)
            if wanted is not None and row[key] != wanted:
                return False
        if self.wording is not None and not fnmatchcase(_plain(row["instruction"]), _plain(self.wording)):
            return False
        return self.region is None or self._starts_within(row, self.region)

    def _starts_within(self, row: Mapping[str, Any], region: Region) -> bool:
        starts = row.get("object_starts")
        if starts is None:
            raise DatasetError(
                f"held_out '{self.name}': dataset '{row['dataset']}' (episode {row['episode']}) does not record "
                f"where '{region.object}' starts.",
                "Leave the region out, or name the `task` or `embodiment` that it is meant for.",
            )
        return any(one["name"] == region.object and region.holds(one["x"], one["y"]) for one in starts)


def held_out_by(rows: Sequence[Mapping[str, Any]], axes: Sequence[HeldOut]) -> list[tuple[str, ...]]:
    """For each episode, the splits of every axis that holds it out, in the order of the axes.

    Raises:
        ConfigError: an axis holds out no episode at all; says what there is.
        DatasetError: a region is asked for that a dataset does not record.
    """
    found = [tuple(axis.split for axis in axes if axis.holds(row)) for row in rows]
    for axis in axes:
        if not any(axis.split in splits for splits in found):
            raise ConfigError(
                f"held_out '{axis.name}' matches none of the {len(rows)} episodes; {_what_exists(rows, axis)}.",
                "Mend it, or leave it out.",
            )
    return found


def _what_exists(rows: Sequence[Mapping[str, Any]], axis: HeldOut) -> str:
    parts = []
    for key in (*_BY_VALUE, "wording"):
        if getattr(axis, key) is not None:
            column = "instruction" if key == "wording" else key
            values = sorted({str(row[column]) for row in rows})
            shown = ", ".join(values[:12]) + (f" and {len(values) - 12} more" if len(values) > 12 else "")
            parts.append(f"{key}: {shown}")
    if axis.region is not None:
        parts.append(_starts_of(rows, axis.region.object))
    return "there are " + "; ".join(parts)


def _starts_of(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    starts = [one for row in rows for one in row.get("object_starts") or ()]
    places = [(one["x"], one["y"]) for one in starts if one["name"] == name]
    if not places:
        return f"objects: {', '.join(sorted({one['name'] for one in starts})) or 'none'}"
    (left, right), (near, far) = (
        (min(place[axis] for place in places), max(place[axis] for place in places)) for axis in (0, 1)
    )
    return f"'{name}' starts within x {left:.3f}..{right:.3f} m, y {near:.3f}..{far:.3f} m"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
