"""One process at a time writes a dataset."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from blm.collect.dataset_files import LOCK_FILE
from blm.schemas.errors import OutputExistsError


def lock_folder(root: Path) -> IO[bytes]:
    """Hold `root` (made if absent) for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        OutputExistsError: another process holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    stream = (root / LOCK_FILE).open("wb")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise OutputExistsError(
            f"{root} is being written by another process.", "Wait for it to end, or choose another --output."
        ) from None
    return stream
