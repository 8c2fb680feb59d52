"""Media that rows refer to: files below one folder, or bytes in the row itself. Nothing else is opened."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from blm.curate.corpus.config import Limits
from blm.curate.corpus.sources.rows import RowError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def file_inside(root: Path, name: str, field: str) -> Path:
    """The file that `name` means below `root`, links resolved.

    Raises:
        RowError: 'outside_root' for addresses, absolute paths and whatever leads out of `root`, 'missing_media'.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if _ADDRESS.match(name) or posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise RowError("outside_root", field, f"{name!r:.200} is not a relative path below the media root")
    try:
        path = (root / name).resolve()
        inside, there = path.is_relative_to(root.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise RowError("missing_media", field, f"{name!r:.200}: {error}") from error
    if not inside:
        raise RowError("outside_root", field, f"{name!r:.200} leads out of the media root")
    if not there:
        raise RowError("missing_media", field, f"{name!r:.200} does not exist")
    return path


def read_inside(root: Path, name: str, field: str, limits: Limits) -> bytes:
    """The content of that file, which is not opened where it is larger than the limit.

    Raises:
        RowError: as `file_inside`, and 'media_too_large'.
    """
    path = file_inside(root, name, field)
    try:
        check_size(path.stat().st_size, name, field, limits)
        return path.read_bytes()
    except OSError as error:
        raise RowError("missing_media", field, f"{name!r:.200}: {error.strerror}") from error


def check_size(size: int, name: str, field: str, limits: Limits) -> None:
    """Raise RowError 'media_too_large' for a content of so many bytes."""
    limit = limits.max_media_bytes
    if size > limit:
        raise RowError("media_too_large", field, f"{name!r:.200} has {size} bytes, more than {limit}")
