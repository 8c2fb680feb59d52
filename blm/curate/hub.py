"""Uploads a finished build, a corpus or splits, to the Hugging Face Hub, where its card describes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blm.curate.build_check import check_build
from blm.curate.shards import read_shard_table
from blm.hub import check_can_push, explained_upload
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import MANIFEST_FILE, read_manifest
from blm.schemas.progress import silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TABLES = ("*.parquet", "README.md", "report.html", MANIFEST_FILE)
_SUBFOLDERS = ("parquet/*.parquet",)
_REPLACED = ("*.tar", "*.parquet", "parquet/*.parquet")
"""What goes from the repository where the build no longer has it."""


def push_build(folder: Path, repository: str, *, private: bool = True, api: HfApi | None = None) -> str:
    """Upload the build in `folder` as `repository` (ORG/NAME), a dataset, made if absent; returns its address.

    Only the build's own files go, in one commit: shards, tables, card, report, manifest, Parquet form; not what else
    lies in the folder. Whether an existing repository is private stays as it is.

    Raises:
        UsageError: the name is not ORG/NAME.
        DatasetError: no finished, whole build there, nobody is logged in, or the Hub cannot be reached or refuses.
    """
    manifest = read_manifest(folder)
    check_can_push(repository)
    wanted = _files(folder)
    from huggingface_hub import HfApi

    api = api or HfApi()
    with explained_upload(folder, repository):
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=wanted,
            delete_patterns=list(_REPLACED),
            commit_message=f"{manifest.counts.kept} samples ({manifest.kind}), built by blm {manifest.software}",
        )
    return str(address)


def _files(folder: Path) -> list[str]:
    """The build's files, all of them there; raises DatasetError where it is damaged or holds links."""
    _, _, problems = check_build(folder, True, silent)
    if problems:
        raise DatasetError(f"{folder} is not whole: {problems[0]}", f"`blm doctor {folder}` lists all.")
    names = {row.name for row in read_shard_table(folder)}
    for pattern in (*_TABLES, *_SUBFOLDERS):
        names |= {path.relative_to(folder).as_posix() for path in folder.glob(pattern)}
    for name in sorted(names):
        if (folder / name).is_symlink() or (folder / name).parent.is_symlink():
            raise DatasetError(f"{folder / name} is a link.", "Replace it by a copy.")
    return sorted(names)
