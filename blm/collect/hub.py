"""Uploads a recorded dataset to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blm.collect import dataset_files as files
from blm.collect.dataset_changes import check_no_change_waits
from blm.collect.dataset_files import LOCK_FILE, STAGING_FOLDER
from blm.collect.dataset_lock import lock_folder
from blm.hub import check_can_push, explained_upload
from blm.schemas.errors import DatasetError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LEFT_HERE = (LOCK_FILE, f"{STAGING_FOLDER}/**", "**/*.tmp")
_REPLACED = ("data/**", "meta/**", "videos/**")
"""What goes from the repository where the dataset no longer has it."""


def push_dataset(root: Path, repository: str, *, private: bool = True, api: HfApi | None = None) -> str:
    """Upload the dataset in `root` as `repository` (ORG/NAME), made if absent; returns its address.

    The data arrive in one commit, tagged with LeRobot's version of the format, by which stock LeRobot finds them.
    Whether an existing repository is private stays as it is.

    Raises:
        UsageError: the name is not ORG/NAME, or another process is writing the dataset.
        DatasetError: no dataset there, nobody is logged in, or the Hub cannot be reached or refuses.
    """
    _check_whole(root)
    check_can_push(repository)
    from huggingface_hub import HfApi

    api = api or HfApi()
    with _held(root), explained_upload(root, repository):
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=root,
            ignore_patterns=list(_LEFT_HERE),
            delete_patterns=list(_REPLACED),
            commit_message=f"Dataset of {_episodes(root)} episodes, recorded by blm",
        )
        _tag(api, repository)
    return str(address)


def _check_whole(root: Path) -> None:
    """Refuse what is no dataset, and links, which would upload what lies elsewhere."""
    if not (root / files.INFO_FILE).is_file():
        raise DatasetError(f"{root} holds no LeRobot dataset.", f"A dataset has a file {files.INFO_FILE}.")
    check_no_change_waits(root)
    for path in root.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise DatasetError(
                f"{path} is a link to {path.resolve()}, outside the dataset.", "Replace it by a copy."
            )


def _episodes(root: Path) -> int:
    from json import loads

    return int(loads((root / files.INFO_FILE).read_text(encoding="utf-8")).get("total_episodes", 0))


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """Keep a recorder from writing meanwhile."""
    with lock_folder(root):
        try:
            yield
        finally:
            (root / LOCK_FILE).unlink(missing_ok=True)


def _tag(api: HfApi, repository: str) -> None:
    from huggingface_hub.errors import RevisionNotFoundError

    with suppress(RevisionNotFoundError):
        api.delete_tag(repository, tag=files.CODEBASE_VERSION, repo_type="dataset")
    api.create_tag(repository, tag=files.CODEBASE_VERSION, repo_type="dataset")
