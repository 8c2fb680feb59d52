"""What stays the same over a dataset: which arm, which columns, how its videos are made (`meta/blm.json`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blm import __version__
from blm.collect.dataset_files import INDEX_FEATURES
from blm.collect.video import VideoConfig
from blm.schemas.embodiment import Embodiment
from blm.schemas.episode import INTERVENTION, RECORDING_FILE, episode_features
from blm.schemas.errors import ConfigError, DatasetError

RECORDING_VERSION = 2
"""1: two object slots, no contacts of the gripper. Readers take both; a recording is continued as it was begun."""

_MAY_DIFFER = ("software", "video.queue_frames")
_INTERVENTIONS = "interventions"
"""Stands in `meta/blm.json` only where it is true."""


@dataclass(frozen=True)
class Recording:
    """How a dataset is recorded, first episode to last.

    Attributes:
        simulated: whether poses of objects are known and recorded.
        video: how pictures are encoded.
        variety: what varies between episodes, as `Variety.parse` reads it.
        interventions: whether a person can take over from a policy; frames then say who drove.
    """

    embodiment: Embodiment
    simulated: bool = True
    video: VideoConfig = field(default_factory=VideoConfig)
    variety: str = "none"
    interventions: bool = False

    @property
    def fps(self) -> int:
        """The control rate as LeRobot's whole `fps`; raises ConfigError if it is not a whole number."""
        rate = self.embodiment.control_rate_hz
        if rate != int(rate):
            raise ConfigError(
                f"embodiment '{self.embodiment.name}': control_rate_hz {rate} cannot be recorded.",
                "Use a whole number.",
            )
        return int(rate)

    def columns(self) -> dict[str, dict[str, Any]]:
        """LeRobot's descriptions of what an episode brings: a column, or a video, each."""
        return episode_features(self.embodiment, self.simulated, interventions=self.interventions)

    def features(self) -> dict[str, dict[str, Any]]:
        """The `features` of `meta/info.json`: the columns, the videos with their encoding, LeRobot's indices."""
        features = self.columns()
        for feature in features.values():
            if feature["dtype"] == "video":
                height, width, _ = feature["shape"]
                feature["info"] = self.video.describe(width, height, self.fps)
        return features | INDEX_FEATURES

    def content(self) -> dict[str, Any]:
        """What `meta/blm.json` holds."""
        content: dict[str, Any] = {
            "version": RECORDING_VERSION,
            "software": __version__,
            "simulated": self.simulated,
            "variety": self.variety,
            "video": self.video.model_dump(mode="json"),
            "embodiment": self.embodiment.model_dump(mode="json"),
        }
        return content | ({_INTERVENTIONS: True} if self.interventions else {})

    def check_continues(self, root: Path) -> None:
        """Refuse to go on with a dataset that was begun in another way.

        Raises:
            DatasetError: names the differences.
        """
        path = root / RECORDING_FILE
        there = json.loads(path.read_text(encoding="utf-8"))
        here = json.loads(json.dumps(self.content()))
        if there.get("version") != RECORDING_VERSION:
            raise DatasetError(
                f"{path} has version {there.get('version')}; this version of blm writes {RECORDING_VERSION}.",
                "Continue it with the version of blm that recorded it.",
            )
        self._check_interventions(root, bool(there.get(_INTERVENTIONS)))
        differences = [
            f"{key} is {old!r} there and {new!r} here"
            for key, old, new in _differences(there, here)
            if key not in _MAY_DIFFER
        ]
        if differences:
            shown = "; ".join(differences[:4]) + ("; …" if len(differences) > 4 else "")
            raise DatasetError(
                f"{root} was recorded differently: {shown}.",
                "Continue it with the settings it was begun with, or choose another --output.",
            )

    def _check_interventions(self, root: Path, there: bool) -> None:
        """The columns of a dataset are the same in all its episodes."""
        if there == self.interventions:
            return
        if there:
            raise DatasetError(
                f"{root} was recorded from a policy with a person at hand: its column '{INTERVENTION}' says who drove.",
                "Continue it with --operator policy:RUN, or choose another --output.",
            )
        raise DatasetError(
            f"{root} has no column '{INTERVENTION}' to say in which frames a person takes over from the policy.",
            "Choose another --output for what a policy records; training takes several datasets together.",
        )


def _differences(first: Any, second: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two JSON values, with dotted keys."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [*first, *(name for name in second if name not in first)]
        below = (_differences(first.get(k), second.get(k), f"{key}.{k}".lstrip(".")) for k in keys)
        return [difference for group in below for difference in group]
    return [] if first == second else [(key, first, second)]
