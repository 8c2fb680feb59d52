"""Find the datasets that a build is given: folders, folders of folders, older versions, and names on the Hub.

What has to be fetched or converted goes into a folder beside the output, `.<output>.inputs`, and is used again by the
next build; inputs are never written to.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from blm.curate.episodes.boundaries import check_places, read_json
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.curate.episodes.convert import CONVERTED_VERSION, convert_dataset
from blm.curate.episodes.lerobot_files import check_features
from blm.curate.shards import file_sha256
from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.progress import Progress

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_REVISIONS = ("v3.0", CONVERTED_VERSION)
_INFO = Path("meta/info.json")


def locate_datasets(config: SplitsConfig, progress: Progress) -> SplitsConfig:
    """The configuration with every dataset a local LeRobot v3 folder.

    Raises:
        ConfigError: a folder holds no dataset, or is neither there nor a Hub id.
        DatasetError: a dataset cannot be fetched or converted.
    """
    cache = config.output.with_name(f".{config.output.name}.inputs")
    found: list[DatasetSource] = []
    for number, source in enumerate(config.datasets):
        progress("finding datasets", number, len(config.datasets), str(source.path))
        for one in _local(source, cache, config.output):
            found.append(_as_v3(one, cache, config.follow_links))
    progress("finding datasets", len(config.datasets), len(config.datasets))
    return config.model_copy(update={"datasets": tuple(found)})


def _local(source: DatasetSource, cache: Path, output: Path) -> Iterator[DatasetSource]:
    if (source.path / _INFO).is_file() or (source.path / "meta").is_dir():
        yield source
    elif source.path.is_dir():
        yield from _below(source, output)
    elif _HUB_ID.fullmatch(source.path.as_posix()):
        name = source.path.as_posix()
        path = _fetched(name, cache / "hub" / name.replace("/", "--"))
        yield source.model_copy(update={"path": path, "name": source.name or name.replace("/", "-")})
    else:
        raise DatasetError(
            f"{source.path} does not exist.",
            "Give a LeRobot dataset's folder, a folder of them, or ORG/NAME on the Hub.",
        )


def _below(source: DatasetSource, output: Path) -> Iterator[DatasetSource]:
    """Every dataset under a folder, in the order of their paths; not in hidden folders, nor in a build's."""
    roots = []
    for folder, below, _ in os.walk(source.path):
        if (Path(folder) / _INFO).is_file():
            roots.append(Path(folder))
            below.clear()
        below[:] = [
            name
            for name in below
            if not name.startswith(".") and (Path(folder) / name).resolve() != output.resolve()
        ]
    if not roots:
        raise ConfigError(
            f"{source.path} holds no LeRobot dataset.",
            f"A dataset has a file {_INFO}; give its folder or one above it.",
        )
    if source.name is not None and len(roots) > 1:
        raise ConfigError(
            f"{source.path} holds {len(roots)} datasets, which cannot all be called '{source.name}'.",
            "Leave the name out, or list them one by one.",
        )
    yield from (source.model_copy(update={"path": root}) for root in sorted(roots))


def _as_v3(source: DatasetSource, cache: Path, follow_links: bool) -> DatasetSource:
    if _version(source.path) != CONVERTED_VERSION:
        return source
    check_places(source.path, follow_links)
    check_features(source.path / _INFO, read_json(source.path / _INFO).get("features"))
    name = source.name or source.path.resolve().name
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
        return str(read_json(root / _INFO)["codebase_version"])
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
            if (folder / _INFO).is_file() and (folder / "data").is_dir() and (folder / ".complete").is_file():
                return folder
            raise DatasetError(
                f"dataset '{repository}' is not a folder here and cannot be fetched from the Hub "
                f"({type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else 'no reason given'}).",
                "Check the name, the network and `huggingface-cli login`, or give the path of a local copy.",
            ) from error
        (folder / ".complete").touch()
        return folder
    raise DatasetError(f"dataset '{repository}' has no usable revision on the Hub.", "Give a local copy.")
