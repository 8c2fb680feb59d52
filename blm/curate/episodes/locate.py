"""Find the datasets that a build is given: folders, folders of folders, older versions, and names on the Hub.

What has to be fetched or converted goes into a folder beside the output, `.<output>.inputs`, and is used again by the
next build; inputs are never written to.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blm.curate.episodes.boundaries import check_places, read_json
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.curate.episodes.convert import CONVERTED_VERSION, convert_dataset
from blm.curate.episodes.dataset_folders import DatasetFolder, dataset_folders, is_dataset
from blm.curate.episodes.lerobot_files import INFO_FILE, check_features
from blm.curate.shards import file_sha256
from blm.hub import first_line
from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.progress import Progress

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_REVISIONS = ("v3.0", CONVERTED_VERSION)


@dataclass(frozen=True)
class Located:
    """What a build is given, folder by folder.

    Attributes:
        config: every dataset a local folder; of LeRobot's version 3 unless it is broken.
        broken: why a dataset cannot be used, as far as that is known without reading it, by its path in `config`.
        given: where what was converted comes from, by its path in `config`.
    """

    config: SplitsConfig
    broken: Mapping[Path, DatasetError]
    given: Mapping[Path, Path] = field(default_factory=dict)


def locate_datasets(config: SplitsConfig, progress: Progress) -> Located:
    """Find, fetch and convert the datasets of a build.

    Raises:
        ConfigError: a folder holds no dataset.
        DatasetError: what is given is neither there nor on the Hub.
    """
    cache = config.output.with_name(f".{config.output.name}.inputs")
    found: list[DatasetSource] = []
    broken: dict[Path, DatasetError] = {}
    given: dict[Path, Path] = {}
    listed = {os.path.realpath(source.path) for source in config.datasets}
    for number, source in enumerate(config.datasets):
        progress("finding datasets", number, len(config.datasets), str(source.path))
        for one, problem in _local(source, cache, config, listed):
            try:
                if problem is not None:
                    raise problem
                found.append(_as_v3(one, cache, config.follow_links))
                if found[-1].path != one.path:
                    given[found[-1].path] = one.path
            except DatasetError as error:
                found.append(one)
                broken[one.path] = error
    progress("finding datasets", len(config.datasets), len(config.datasets))
    return Located(config.model_copy(update={"datasets": tuple(found)}), broken, given)


def _local(
    source: DatasetSource, cache: Path, config: SplitsConfig, listed: Collection[str]
) -> Iterator[tuple[DatasetSource, DatasetError | None]]:
    """Every dataset that is meant, with what is known to be wrong with it. One that is also listed itself, by its real
    path, is left to its own entry."""
    if is_dataset(source.path) or (source.path / "meta").is_dir():
        yield source, None
    elif source.path.is_dir():
        for folder in _below(source, config):
            if os.path.realpath(folder.path) in listed:
                continue
            yield source.model_copy(update={"path": folder.path}), folder.problem
    elif _HUB_ID.fullmatch(source.path.as_posix()):
        name = source.path.as_posix()
        path = _fetched(name, cache / "hub" / name.replace("/", "--"))
        yield source.model_copy(update={"path": path, "name": source.name or name.replace("/", "-")}), None
    else:
        raise DatasetError(
            f"{source.path} {'is a file' if source.path.exists() else 'does not exist'}.",
            "Give a LeRobot dataset's folder, a folder of them, or ORG/NAME on the Hub.",
        )


def _below(source: DatasetSource, config: SplitsConfig) -> tuple[DatasetFolder, ...]:
    """Every dataset under a folder, in the order of their paths."""
    folders = dataset_folders(source.path, config.output, config.follow_links)
    if not folders:
        raise ConfigError(
            f"{source.path} holds no LeRobot dataset.",
            f"A dataset has a file {INFO_FILE}; give its folder or one above it.",
        )
    if source.name is not None and len(folders) > 1:
        raise ConfigError(
            f"{source.path} holds {len(folders)} datasets, which cannot all be called '{source.name}'.",
            "Leave the name out, or list them one by one.",
        )
    return folders


def _as_v3(source: DatasetSource, cache: Path, follow_links: bool) -> DatasetSource:
    if _version(source.path) != CONVERTED_VERSION:
        return source
    check_places(source.path, follow_links)
    check_features(source.path / INFO_FILE, read_json(source.path / INFO_FILE).get("features"))
    name = source.name or Path(os.path.abspath(source.path)).name
    target = cache / CONVERTED_VERSION / f"{name}-{_digest(source.path)[:16]}"
    if not target.is_dir():
        staged = target.with_name(target.name + ".unfinished")
        shutil.rmtree(staged, ignore_errors=True)
        convert_dataset(source.path, staged)
        staged.rename(target)
    return source.model_copy(update={"path": target, "name": name})


def _version(root: Path) -> str | None:
    """Of the dataset's format; None where that cannot be read, which is found out again when it is indexed."""
    try:
        return str(read_json(root / INFO_FILE)["codebase_version"])
    except (DatasetError, KeyError):
        return None


def _digest(root: Path) -> str:
    """SHA-256 over names and contents of all files that a conversion reads."""
    digest = hashlib.sha256()
    files = (path for part in ("meta", "data", "videos") for path in sorted((root / part).rglob("*")))
    for path in files:
        if path.is_file():
            digest.update(f"{path.relative_to(root).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _fetched(repository: str, folder: Path) -> Path:
    """A dataset of the Hub as plain files; what is there already is not fetched again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    for revision in (*_HUB_REVISIONS, None):
        try:
            snapshot_download(repository, repo_type="dataset", revision=revision, local_dir=folder)
        except RevisionNotFoundError:
            continue
        except Exception as error:  # whatever the network stack raises: it has no common base
            if (
                (folder / INFO_FILE).is_file()
                and (folder / "data").is_dir()
                and (folder / ".complete").is_file()
            ):
                return folder
            raise DatasetError(
                f"dataset '{repository}' is not a folder here and cannot be fetched from the Hub "
                f"({first_line(error, 160)}).",
                "Check the name, the network and `hf auth login`, or give the path of a local copy.",
            ) from error
        (folder / ".complete").touch()
        return folder
    raise DatasetError(f"dataset '{repository}' has no usable revision on the Hub.", "Give a local copy.")
