"""Datasets under a folder, also those it links to. What looks like a dataset and is none is told, not passed over.

People keep recordings on several disks and put links to them into one folder. So a link that stands right in the
folder given is followed wherever it leads, and its dataset is called what the link is called. A link further down may
have come with a download: it is followed within the folder, and out of it only where links are trusted.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blm.curate.episodes.lerobot_files import INFO_FILE
from blm.schemas.errors import DatasetError

_SIGNS = (
    INFO_FILE,
    "meta/episodes",
    "meta/episodes.jsonl",
    "meta/tasks.parquet",
    "meta/stats.json",
    "data/chunk-000",
)
"""A folder with one of these is, or was, a dataset."""


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset, or what should have been one: `problem` says why it cannot be one."""

    path: Path
    problem: DatasetError | None = None


def dataset_folders(
    top: Path, output: Path | None = None, follow_links: bool = False
) -> tuple[DatasetFolder, ...]:
    """Every dataset at `top` or under it, in the order of their paths, each once however many links lead to it.

    Hidden folders and `output` are not looked into. A dataset that lost its `meta/info.json` is among the results:
    whoever reads it finds out. A folder that may not be read, a link that leads nowhere, and an untrusted link to a
    dataset come with their problem.
    """
    return tuple(sorted(_Search(top, output, follow_links).found(), key=lambda one: one.path))


class _Search:
    """Folders first, then the links met on the way, so that a dataset is known by its own place where it has one."""

    def __init__(self, top: Path, output: Path | None, follow_links: bool) -> None:
        self.top, self.follow_links = top, follow_links
        self.folders, self.links = deque([top]), deque[Path]()
        self.visited = set() if output is None else {os.path.realpath(output)}

    def found(self) -> Iterator[DatasetFolder]:
        while self.folders or self.links:
            if self.folders:
                yield from self._in_folder(self.folders.popleft())
            else:
                yield from self._at_link(self.links.popleft())

    def _in_folder(self, folder: Path) -> Iterator[DatasetFolder]:
        place = os.path.realpath(folder)
        if place in self.visited:
            return
        self.visited.add(place)
        if is_dataset(folder):
            yield DatasetFolder(folder)
            return
        try:
            with os.scandir(folder) as entries:
                seen = sorted((one for one in entries if not one.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            yield DatasetFolder(
                folder, DatasetError(f"{folder} cannot be read: {error.strerror}.", _PERMISSIONS)
            )
            return
        for entry in seen:
            if entry.is_symlink():
                self.links.append(Path(entry.path))
            elif entry.is_dir():
                self.folders.append(Path(entry.path))

    def _at_link(self, link: Path) -> Iterator[DatasetFolder]:
        target = os.path.realpath(link)
        if not os.path.exists(target):
            yield DatasetFolder(link, DatasetError(f"{link} is a link that leads nowhere ({target}).", _DISK))
        elif not os.path.isdir(target) or target in self.visited:
            return
        elif self.follow_links or link.parent == self.top or self._is_within(target):
            self.folders.append(link)
        elif is_dataset(Path(target)) or any(is_dataset(path) for path in _folders_in(target)):
            yield DatasetFolder(
                link,
                DatasetError(
                    f"{link} is a link that leads out of {self.top}, to {target}.",
                    "Give that folder itself, or trust links with --follow-links.",
                ),
            )

    def _is_within(self, target: str) -> bool:
        return Path(target).is_relative_to(os.path.realpath(self.top))


_PERMISSIONS = "Mend its permissions."
_DISK = "Is a disk not mounted? Else remove the link."


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a LeRobot dataset, or what is left of one."""
    return any(os.path.exists(folder / sign) for sign in _SIGNS)


def _folders_in(folder: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(one.path) for one in entries if one.is_dir()]
    except OSError:
        return []
