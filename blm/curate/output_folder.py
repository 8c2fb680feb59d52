"""The folder of a build: whose it is, whether it is whole, and replacing one build by the next without losing either.

Everything a build writes goes to `.unfinished/` in the output folder. When all is there, `publish` moves it into
place, `manifest.json` last. So while a build is under way, whatever was finished in the folder before stays whole and
readable; a build killed at any moment leaves either the old build, or no manifest and all that is needed to go on.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from blm.curate.shards import FinishedShard, file_sha256, read_finished, read_index, read_shard_table
from blm.schemas.errors import BlmError, DatasetError, OutputExistsError
from blm.schemas.manifest import MANIFEST_FILE, Manifest, read_manifest, write_atomically
from blm.schemas.shard import ShardRow

UNFINISHED_FOLDER = ".unfinished"
CACHE_FOLDER = ".cache"
"""What a build keeps for the next one, if it does."""
BUILD_RECORD = "build.json"
_SPLIT_FILE = re.compile(r"[a-z_]+-\d{5}\.\w+")
_PATIENCE_S, _POLL_S = 2.0, 0.05


class OutputFolder:
    """Where a build of one kind, with one fingerprint, goes; `subfolders` hold files of splits that it may write."""

    def __init__(self, path: Path, kind: str, fingerprint: str, subfolders: Sequence[str] = ()) -> None:
        self.path, self.kind, self.fingerprint = path, kind, fingerprint
        self.subfolders = subfolders

    @property
    def staging(self) -> Path:
        """Where the build's files are written until all are there."""
        return self.path / UNFINISHED_FOLDER

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other builds out of the folder, which is made, and removed where nothing was put into it.

        The system lets go of it when the process ends, however it ends.

        Raises:
            OutputExistsError: another build is under way there, or it is a file.
        """
        made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise self._held("a file") from None
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            if not _locked(descriptor):
                raise OutputExistsError(
                    f"{self.path} is being written by another build.",
                    "Wait for it to end, or choose another --output.",
                )
            yield
        finally:
            if made:
                with suppress(OSError):
                    self.path.rmdir()
            os.close(descriptor)

    def is_complete(self, files: Sequence[str]) -> bool:
        """Whether this build is there, whole: manifest, `files`, and shards of the recorded sizes.

        A build that was interrupted while it was put in place is put in place first.
        """
        self._finish_publishing()
        manifest = self.finished_build()
        if manifest is None or manifest.fingerprint != self.fingerprint:
            return False
        try:
            rows = read_shard_table(self.path)
            whole = all((self.path / row.name).stat().st_size == row.bytes for row in rows)
        except (DatasetError, OSError):
            return False
        if whole and all((self.path / name).is_file() for name in files):
            self.abandon()
            return True
        return False

    def finished_build(self) -> Manifest | None:
        """The manifest of the finished build of this kind in the folder, if there is one."""
        try:
            return read_manifest(self.path, self.kind)
        except (BlmError, OSError):
            return None

    def prepare(self, overwrite: bool, objection: Callable[[Manifest], str | None] | None = None) -> None:
        """Make the folder ready; what an interrupted build left in `staging` stays there.

        `objection` says why a finished build of the same kind is not to be replaced unasked, or None where it may be.

        Raises:
            OutputExistsError: the folder holds something else and `overwrite` is not set.
        """
        if not overwrite and (why := self._objection(objection)):
            raise self._held(why)
        record = json.dumps({"kind": self.kind, "fingerprint": self.fingerprint}).encode()
        write_atomically(self.staging / BUILD_RECORD, record)

    def reuse(self, name: str, source: str) -> FinishedShard | None:
        """A shard made from this `source`, left by an interrupted run or held by the finished build, now in `staging`.

        None where there is none, or it is damaged.
        """
        if shard := read_finished(self.staging, name, source):
            return shard
        shard = self._published.get(name)
        if shard is None or shard.row.source != source:
            return None
        try:
            if file_sha256(self.path / name) != shard.row.sha256:
                return None
        except OSError:
            return None
        _link(self.path / name, self.staging / name)
        return shard

    @cached_property
    def _published(self) -> dict[str, FinishedShard]:
        """The shards of the finished build."""
        if self.finished_build() is None:
            return {}
        try:
            index = read_index(self.path)
            rows = read_shard_table(self.path)
        except DatasetError:
            return {}
        return {row.name: FinishedShard(row, index.get(row.name, ())) for row in rows}

    def publish(self, manifest: Manifest, shards: Iterable[ShardRow]) -> None:
        """Put what lies in `staging` in place; of tars only those of `shards`, which may be in place already."""
        wanted = {row.name for row in shards}
        for path in self.staging.glob("*.tar"):
            if path.name not in wanted:
                path.unlink()
        for name in self.subfolders:
            (self.staging / name).mkdir(exist_ok=True)
        manifest.write(self.staging)
        self._finish_publishing()

    def abandon(self) -> None:
        """Forget the build under way."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def _finish_publishing(self) -> None:
        """Every step may be done twice, so that it does not matter where an earlier run was interrupted."""
        if not (self.staging / MANIFEST_FILE).is_file():
            return
        (self.path / MANIFEST_FILE).unlink(missing_ok=True)
        self._remove_stale_shards()
        for name in self.subfolders:
            self._put_in_place(name)
        for path in sorted(self.staging.iterdir()):
            if path.is_file() and path.suffix not in (".json", ".tmp"):
                os.replace(path, self.path / path.name)
        os.replace(self.staging / MANIFEST_FILE, self.path / MANIFEST_FILE)
        _flush_folder(self.path)
        self.abandon()

    def _remove_stale_shards(self) -> None:
        """Those of the build in place that the new one does not have: named by the old table, until it is replaced."""
        try:
            old, new = read_shard_table(self.path), read_shard_table(self.staging)
        except DatasetError:
            return
        for name in {row.name for row in old} - {row.name for row in new}:
            if (self.path / name).parent == self.path:
                (self.path / name).unlink(missing_ok=True)

    def _put_in_place(self, name: str) -> None:
        """The files of a subfolder, after those of an earlier build are gone."""
        target, staged, moving = self.path / name, self.staging / name, self.staging / f"{name}.moving"
        if staged.is_dir():
            for path in target.glob("*"):
                if _SPLIT_FILE.fullmatch(path.name):
                    path.unlink()
            os.replace(staged, moving)
        for path in sorted(moving.glob("*")):
            target.mkdir(exist_ok=True)
            os.replace(path, target / path.name)
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()

    def _objection(self, objection: Callable[[Manifest], str | None] | None) -> str | None:
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            return "a file"
        if (self.path / MANIFEST_FILE).exists():
            manifest = self.finished_build()
            if manifest is None:
                return "a build of another kind or version"
            if manifest.fingerprint == self.fingerprint:
                return None
            return objection(manifest) if objection else "another build"
        if any(path.name != CACHE_FOLDER for path in self.path.iterdir()) and (
            self._unfinished_kind() != self.kind
        ):
            return "other files"
        return None

    def _held(self, what: str) -> OutputExistsError:
        return OutputExistsError(
            f"{self.path} holds something else ({what}).",
            "Choose another --output, or replace a build with --overwrite.",
        )

    def _unfinished_kind(self) -> str | None:
        try:
            content = json.loads((self.staging / BUILD_RECORD).read_text(encoding="utf-8"))
            return str(content["kind"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _locked(descriptor: int) -> bool:
    """Lock an open folder, after a moment's wait: a build that was just killed may not be gone yet.

    File systems that cannot lock a folder do not stop a build.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)
        except OSError:
            return True


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no such links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
