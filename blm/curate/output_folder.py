"""The folder of a build: whose it is, whether it is whole, and making it ready without touching other files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from blm.curate.shards import UNFINISHED_FOLDER, forget_progress, read_shard_table
from blm.schemas.errors import DatasetError, OutputExistsError
from blm.schemas.manifest import MANIFEST_FILE, read_manifest, write_atomically

BUILD_RECORD = "build.json"


def is_complete(folder: Path, kind: str, fingerprint: str, files: Sequence[str]) -> bool:
    """Whether the build with this fingerprint is there, whole: manifest, `files`, and shards of the recorded sizes."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    try:
        if read_manifest(folder, kind).fingerprint != fingerprint:
            return False
        rows = read_shard_table(folder)
        whole = all((folder / row.name).stat().st_size == row.bytes for row in rows)
    except (DatasetError, OSError):
        return False
    return whole and all((folder / name).is_file() for name in files)


def prepare(folder: Path, fingerprint: str, own: Sequence[str], overwrite: bool) -> None:
    """Make a folder ready for a build, keeping what an interrupted run of the same build finished.

    `own` are patterns of the files that a build of this kind writes: all that `overwrite` removes of another build.

    Raises:
        OutputExistsError: the folder holds something else and `overwrite` is not set.
    """
    if owner(folder) not in (None, fingerprint):
        if not overwrite:
            raise OutputExistsError(
                f"{folder} holds something else (another build, or other files).",
                "Choose another --output, or replace a build with --overwrite.",
            )
        remove_build(folder, own)
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    record = json.dumps({"fingerprint": fingerprint}).encode()
    write_atomically(folder / UNFINISHED_FOLDER / BUILD_RECORD, record)


def remove_build(folder: Path, own: Sequence[str]) -> None:
    """Remove a build's own files, the manifest first; whatever else lies in the folder stays."""
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    for pattern in own:
        for path in folder.glob(pattern):
            path.unlink()
    forget_progress(folder)


def owner(folder: Path) -> str | None:
    """The fingerprint of the build in a folder, finished or not; '' for other files; None for an empty folder."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        return ""
    if not any(folder.iterdir()):
        return None
    for path in (folder / MANIFEST_FILE, folder / UNFINISHED_FOLDER / BUILD_RECORD):
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""
