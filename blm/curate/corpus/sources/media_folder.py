"""Media that rows refer to: files below one folder, and web addresses where the build allows them. Nothing else is
opened."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from blm.curate.corpus.config import Limits, SourceConfig
from blm.curate.corpus.download import DownloadError, Fetched, Kind, is_web_address
from blm.curate.corpus.sources.rows import RowError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def file_inside(root: Path, name: str, field: str) -> Path:
    """The file that `name` means below `root`, links resolved.

    Raises:
        RowError: 'outside_root' for addresses, absolute paths and whatever leads out of `root`, 'missing_media'.
    """
    if is_web_address(name):
        raise RowError("outside_root", field, f"{name!r:.200} is a web address (see --allow-download)")
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
        raise RowError("missing_media", field, f"{name!r:.200} does not exist below the media root")
    return path


def media_file(root: Path, name: str, kind: Kind, config: SourceConfig) -> Path:
    """The file that `name` means: below `root`, or fetched from the web where the build allows it.

    Raises:
        RowError: as `file_inside`, and the reasons of `Downloads.file`.
    """
    fetched = fetched_media(name, kind, config)
    return fetched.file if fetched else file_inside(root, name, kind)


def fetched_media(name: str, kind: Kind, config: SourceConfig) -> Fetched | None:
    """What the web address `name` holds; None where it is none, or nothing may be fetched.

    Raises:
        RowError: the reasons of `Downloads.file`.
    """
    if config.downloads is None or not is_web_address(name):
        return None
    try:
        return config.downloads.file(name, kind)
    except DownloadError as error:
        raise RowError(error.reason, kind, str(error)) from error


def read_media(root: Path, name: str, config: SourceConfig) -> bytes:
    """The content of an image, which is not opened where it is larger than the limit.

    Raises:
        RowError: as `media_file`, and 'media_too_large'.
    """
    path = media_file(root, name, "image", config)
    try:
        check_size(path.stat().st_size, name, "image", config.limits)
        return path.read_bytes()
    except OSError as error:
        raise RowError("missing_media", "image", f"{name!r:.200}: {error.strerror}") from error


def check_size(size: int, name: str, field: str, limits: Limits) -> None:
    """Raise RowError 'media_too_large' for a content of so many bytes."""
    limit = limits.max_media_bytes
    if size > limit:
        raise RowError("media_too_large", field, f"{name!r:.200} has {size} bytes, more than {limit}")
