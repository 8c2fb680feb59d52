"""What a dataset may claim, and where it may lead: looked at before anything is read that could be large or elsewhere.

Datasets come from anywhere. Nothing in one may make a build read outside the dataset's folder, take memory or time
out of proportion to the episodes announced, or wait for a pipe.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any

from blm.schemas.errors import DatasetError
from blm.schemas.printable import printable

MAX_JSON_BYTES = 32 * 1024**2
MAX_EPISODES = 5_000_000
MAX_EPISODE_FRAMES = 10_000_000
MAX_FEATURES = 2_000
MAX_NAME_LENGTH = 200
MAX_RATE_HZ = 1_000.0
MAX_TEMPLATE_LENGTH = 500
MAX_VECTOR_LENGTH = 1_024
MAX_SUBTASKS = 100_000

_READ_PARTS = ("meta", "data", "videos")
_NUMBER_FORMAT = re.compile(r"0?[0-9]?d?")


def check_places(root: Path, follow_links: bool = False) -> None:
    """Refuse a dataset that holds anything but folders and files, or links that lead out of it.

    Links may lead anywhere within the dataset and, in a Hub cache (`datasets--ORG--NAME/snapshots/REVISION`), to its
    `blobs`; with `follow_links` anywhere.

    Raises:
        DatasetError: names the link, pipe or device, or the folder that may not be read.
    """
    homes = _homes(root)
    for part in _READ_PARTS:
        if (root / part).is_symlink() or (root / part).exists():
            _check_place(root / part, homes, follow_links)
    for entry in _entries([root / part for part in _READ_PARTS if (root / part).is_dir()]):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            _check_place(Path(entry.path), homes, follow_links)


def _homes(root: Path) -> list[Path]:
    home = _resolved(root)
    cache = home.parent.parent
    in_cache = home.parent.name == "snapshots" and cache.name.startswith("datasets--")
    return [home, cache / "blobs"] if in_cache else [home]


def _entries(folders: list[Path]) -> Iterator[os.DirEntry[str]]:
    """Everything below, without following links."""
    for folder in folders:
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            raise DatasetError(
                f"{folder} cannot be read: {error.strerror}.", "Mend its permissions."
            ) from error
        yield from entries
        yield from _entries([Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)])


def _check_place(path: Path, homes: list[Path], follow_links: bool) -> None:
    if path.is_symlink():
        target = _resolved(path)
        if not follow_links and not any(target.is_relative_to(home) for home in homes):
            raise DatasetError(
                f"{path} is a link that leads out of the dataset.",
                "Copy what it points to, or trust the dataset's links with --follow-links.",
            )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return  # a link to nothing; whatever needs it will say so
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.", "Mend its permissions.") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DatasetError(f"{path} is neither a file nor a folder.", "Remove it.")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path} leads nowhere: {error}.", "Remove the link.") from error


def read_json(path: Path, most_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON object from a file of at most so many bytes, in which no key comes twice.

    Raises:
        DatasetError: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist.", "Give the root folder of a LeRobot v3 dataset.")
    try:
        if path.stat().st_size > most_bytes:
            raise ValueError(f"it has more than {most_bytes // 1024**2} MB")
        content = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_object)
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} is not readable or lacks sense: {printable(str(error), 200)}.",
            "Restore the file, or record again.",
        ) from error
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key '{next(name for name in names if names.count(name) > 1)}' comes twice")
    return content


def is_plain_name(name: str) -> bool:
    """Whether a feature may be called this: printable, without slashes and quotes, not a folder's shorthand."""
    return (
        0 < len(name) <= MAX_NAME_LENGTH
        and name.isprintable()
        and not set('/\\"') & set(name)
        and name not in (".", "..")
    )


def check_template(template: Any, folder: str, allowed: tuple[str, ...]) -> str | None:
    """Why a path template of `info.json` cannot be used; None where it can.

    It has to stay within that folder of the dataset whatever names and numbers are filled in, and may hold only
    `allowed` ones. Elsewhere, nobody looks for links, and changes are not noticed.
    """
    if not isinstance(template, str) or not 0 < len(template) <= MAX_TEMPLATE_LENGTH:
        return "is not a short text"
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        return f"is no template ({error})"
    for _, name, form, conversion in parts:
        if name is not None and (
            name not in allowed or conversion or (form and not _NUMBER_FORMAT.fullmatch(form))
        ):
            return f"asks for '{name}:{form}'"
    if not template.isprintable() or Path(template).is_absolute() or ".." in Path(template).parts:
        return "leads out of the dataset"
    if Path(template).parts[:1] != (folder,):
        return f"does not lead into '{folder}'"
    return None
