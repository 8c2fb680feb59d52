"""What a build would make of its inputs, before it is started: nothing is decoded, converted data is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from blm.curate.episodes.boundaries import check_places
from blm.curate.episodes.broken_datasets import refused_or_skipped
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.curate.episodes.features import Features, Inferred, infer_features
from blm.curate.episodes.inputs import named_sources, no_camera
from blm.curate.episodes.lerobot_files import check_announced, read_episode_metadata, read_info
from blm.curate.episodes.locate import locate_datasets
from blm.schemas.errors import DatasetError
from blm.schemas.progress import Progress, silent


@dataclass(frozen=True)
class Inspection:
    """One dataset: what is in it, what was inferred, and the lines of `splits.yaml` that say the same.

    `tasks` maps each wording to its number of episodes. Where a dataset cannot be used, `problem` says why, and
    what cannot be told is empty.
    """

    name: str
    path: Path
    episodes: int
    frames: int
    tasks: dict[str, int]
    found: tuple[Inferred, ...] = ()
    override: str = ""
    problem: str = ""


def inspect_datasets(config: SplitsConfig, progress: Progress | None = None) -> list[Inspection]:
    """Look at every input, in the order of the names.

    Raises:
        ConfigError: inputs repeat, or are not there.
        DatasetError: of no input it can be told what is what; lists what there is.
    """
    located = locate_datasets(config, progress or silent)
    config, sources = located.config, named_sources(located.config)
    found: list[Inspection] = []
    errors: dict[str, DatasetError] = {}
    for name, source in sources.items():
        try:
            if source.path in located.broken:
                raise located.broken[source.path]
            as_given = located.given.get(source.path, source.path)
            found.append(_inspected(name, source, config, as_given))
        except DatasetError as error:
            errors[name] = error
    paths = {name: source.path for name, source in sources.items()}
    for one in refused_or_skipped(errors, paths, "skip"):
        problem = f"{one.problem} {one.remedy}"
        found.append(Inspection(one.name, paths[one.name], one.episodes or 0, 0, {}, problem=problem))
    return sorted(found, key=lambda one: one.name)


def _inspected(name: str, source: DatasetSource, config: SplitsConfig, as_given: Path) -> Inspection:
    check_places(source.path, config.follow_links)
    info = read_info(source.path)
    with config.resources.connect() as connection:
        meta = read_episode_metadata(source.path, info, connection)
    check_announced(source.path, info, meta)
    features = infer_features(source, info, meta, config.cameras, config.resources)
    wordings = Counter(wording for tasks in meta["tasks"].to_pylist() for wording in tasks or [""])
    return Inspection(
        name=name,
        path=as_given,
        episodes=len(meta),
        frames=sum(length or 0 for length in meta["length"].to_pylist()),
        tasks=dict(wordings.most_common()),
        found=features.found,
        override=_as_yaml(source.model_copy(update={"path": as_given}), features),
        problem="" if features.cameras else str(no_camera(source.path)),
    )


def _as_yaml(source: DatasetSource, features: Features) -> str:
    told = {name: getattr(source, name) for name in ("name", "task", "frame_stride")}
    entry: dict[str, Any] = {
        "path": str(source.path),
        **{name: value for name, value in told.items() if value is not None},
        "features": {
            "state": features.columns.state_feature,
            "action": features.columns.action_feature,
            "cameras": {camera.name: camera.feature for camera in features.cameras},
        },
    }
    if features.described:
        entry["embodiment"] = source.embodiment or features.embodiment.name
    else:
        entry["features"]["axes"] = list(features.embodiment.axis_names)
    return yaml.safe_dump({"datasets": [entry]}, sort_keys=False, default_flow_style=None, width=100)
