"""Bytes of a build's files, wherever they lie: a local folder, anything fsspec opens, or the latter cached locally."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from blm.schemas.errors import ConfigError, DatasetError


class ByteRange(NamedTuple):
    """Some bytes of one file of the build."""

    name: str
    offset: int
    size: int


class Storage(Protocol):
    """Files by name, read whole or by ranges. Safe to use from several threads and after a fork."""

    location: str

    def read(self, name: str) -> bytes:
        """A whole file; raises FileNotFoundError where there is none."""
        ...

    def ranges(self, wanted: Sequence[ByteRange]) -> list[bytes]:
        """The bytes of each range; raises DatasetError naming the file where it is missing or shorter than that."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file where that is cheap to know, else None; raises DatasetError where the file is missing."""
        ...

    def close(self) -> None: ...


def open_storage(location: str | Path, cache: str | Path | None = None) -> Storage:
    """A folder's path, `file://…`, or any URL fsspec knows (`s3://`, `gs://`, `hf://`, `https://`, chains with `::`).

    With `cache`, remote files are fetched whole into that folder when first needed, and read there.

    Raises:
        ConfigError: the URL's protocol is unknown or its library is not installed.
    """
    text = str(location)
    if text.startswith("file://") and "::" not in text:
        text = text.removeprefix("file://")
    if "://" not in text and "::" not in text:
        return LocalStorage(Path(text))
    remote = RemoteStorage(text)
    return remote if cache is None else CachedStorage(remote, Path(cache))


class LocalStorage:
    """A folder, read with `pread`: no seek position is shared, and nothing of a tar is scanned."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.location = folder, str(folder)
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def ranges(self, wanted: Sequence[ByteRange]) -> list[bytes]:
        contents = []
        for name, offset, size in wanted:
            content = os.pread(self._files.get(name) or self._opened(name), size, offset)
            if len(content) != size:
                raise _too_short(self.folder / name, offset + size)
            contents.append(content)
        return contents

    def size(self, name: str) -> int:
        try:
            return (self.folder / name).stat().st_size
        except OSError as error:
            raise _cannot_open(self.folder / name, error) from error

    def close(self) -> None:
        """Close the files; reading opens them again."""
        with self._lock:
            for descriptor in self._files.values():
                os.close(descriptor)
            self._files = {}

    def _opened(self, name: str) -> int:
        with self._lock:
            if name not in self._files:
                try:
                    self._files[name] = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise _cannot_open(self.folder / name, error) from error
            return self._files[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])


class RemoteStorage:
    """A folder behind an fsspec URL; all ranges of one call are asked for together."""

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        self._connected: tuple[int, Any, str] | None = None
        self._filesystem()

    def read(self, name: str) -> bytes:
        filesystem, root = self._filesystem()
        return filesystem.cat_file(f"{root}/{name}")

    def ranges(self, wanted: Sequence[ByteRange]) -> list[bytes]:
        contents = self._contents(wanted)
        for each, content in zip(wanted, contents, strict=True):
            file = f"{self.location}/{each.name}"
            if isinstance(content, Exception):
                raise _cannot_open(file, content) from content
            if len(content) > each.size:
                raise DatasetError(
                    f"{file}: the server sends more than the range asked for.", "Read with cache=FOLDER."
                )
            if len(content) < each.size:
                raise _too_short(file, each.offset + each.size)
        return contents

    def size(self, name: str) -> None:
        return None

    def fetch(self, name: str, path: Path) -> None:
        """Copy a whole file to `path`; raises DatasetError where that fails."""
        filesystem, root = self._filesystem()
        try:
            filesystem.get_file(f"{root}/{name}", str(path))
        except Exception as error:  # each filesystem has its own family
            raise _cannot_open(f"{self.location}/{name}", error) from error

    def close(self) -> None: ...

    def _contents(self, wanted: Sequence[ByteRange]) -> list[Any]:
        """The bytes of each range, or the error that came instead."""
        filesystem, root = self._filesystem()
        paths = [f"{root}/{each.name}" for each in wanted]
        starts = [each.offset for each in wanted]
        ends = [each.offset + each.size for each in wanted]
        if "::" not in self.location:
            return filesystem.cat_ranges(paths, starts, ends, on_error="return")
        # fsspec's caches fail where one call asks for several ranges of a file that they do not hold yet.
        contents: list[Any] = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            try:
                contents.append(filesystem.cat_file(path, start=start, end=end))
            except Exception as error:  # each filesystem has its own family
                contents.append(error)
        return contents

    def _filesystem(self) -> tuple[Any, str]:
        """The filesystem and the folder's path in it, connected anew in a forked process."""
        if self._connected is None or self._connected[0] != os.getpid():
            from fsspec.core import url_to_fs

            try:
                fresh = {} if self._connected is None else {"skip_instance_cache": True}
                filesystem, root = url_to_fs(self.location, **fresh)
            except (ImportError, ValueError) as error:
                raise ConfigError(f"Cannot read {self.location}: {error}") from error
            self._connected = os.getpid(), filesystem, root.rstrip("/")
        return self._connected[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "_connected": None}


class CachedStorage:
    """A remote folder whose files are fetched whole, once, into a local one; several processes may share it.

    The small files that describe the build are fetched each time, so that a build replaced at the source is noticed:
    a cached shard counts only while it has the size the build's table gives.
    """

    def __init__(self, remote: RemoteStorage, folder: Path) -> None:
        self.remote, self.folder, self.location = remote, folder, remote.location
        self._local = LocalStorage(folder)
        self._checked: set[str] = set()

    def read(self, name: str) -> bytes:
        return self.remote.read(name)

    def ranges(self, wanted: Sequence[ByteRange]) -> list[bytes]:
        for name in sorted({each.name for each in wanted} - self._checked):
            self._fetch(name)
        return self._local.ranges(wanted)

    def size(self, name: str) -> int | None:
        """Of a copy that is there already."""
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None

    def discard(self, name: str) -> None:
        """Forget a copy; the next read fetches the file again."""
        self._local.close()
        self._checked.discard(name)
        (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        self._local.close()

    def _fetch(self, name: str) -> None:
        path = self.folder / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            try:
                self.remote.fetch(name, beside)
                os.replace(beside, path)
            finally:
                beside.unlink(missing_ok=True)
        self._checked.add(name)


def _too_short(file: Path | str, end: int) -> DatasetError:
    return DatasetError(f"{file} ends before byte {end}.", "Build the splits again, or copy them again.")


def _cannot_open(file: Path | str, error: Exception) -> DatasetError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DatasetError(f"Cannot open {file}: {reason}.", "Copy it again.")
