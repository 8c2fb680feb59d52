"""What `blm view` was asked to show: a recording, a build, or something on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blm.pages.viewer.source import ViewSource


def open_view(name: str) -> ViewSource:
    """Open a dataset's or a build's folder, a build's address, or ORG/NAME on the Hub.

    Raises:
        UsageError: it is a corpus, which another command shows.
        DatasetError: there is nothing to show, or it is broken or cannot be reached.
    """
    from blm.hub import HUB_NAME
    from blm.pages.viewer.dataset import ViewedDataset
    from blm.pages.viewer.hub import hub_dataset, hub_metadata
    from blm.schemas.manifest import MANIFEST_FILE

    folder = Path(name)
    if "://" in name:
        return _open_build(name)
    if (folder / MANIFEST_FILE).is_file():
        _refuse_corpus(folder, name)
        return _open_build(folder)
    if folder.exists() or not HUB_NAME.fullmatch(name):
        return ViewedDataset(folder)
    fetched = hub_metadata(name)
    if (fetched / MANIFEST_FILE).is_file():
        _refuse_corpus(fetched, name)
        return _open_build(f"hf://datasets/{name}")
    return hub_dataset(name, fetched)


def _open_build(location: str | Path) -> ViewSource:
    from blm.train.shard_build import ShardBuild
    from blm.train.viewed_build import ViewedBuild

    return ViewedBuild(ShardBuild(location))


def _refuse_corpus(folder: Path, name: str) -> None:
    from blm.schemas.errors import UsageError
    from blm.schemas.manifest import read_manifest

    if read_manifest(folder).kind == "stage1-corpus":
        raise UsageError(
            f"{name} is a corpus of conversations; blm view shows recordings and splits.",
            f"See what is in it with: blm curate inspect {name}",
        )
