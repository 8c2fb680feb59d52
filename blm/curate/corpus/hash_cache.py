"""Perceptual hashes of a build's images, kept for the next build in the same folder, by the images' SHA-256.

.cache/image-hashes-<digest>.arrow      `_SCHEMA`; one file, named after the SHA-256 of its bytes
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blm import __version__
from blm.curate.corpus.perceptual_hash import ImageHashes
from blm.schemas.manifest import write_atomically

HASHES = "image-hashes-"
_NAMES = tuple(field.name for field in fields(ImageHashes))
_SCHEMA = pa.schema(
    [
        ("sha256", pa.binary(32)),
        *((name, pa.bool_() if name == "usable" else pa.uint64()) for name in _NAMES),
    ],
    metadata={"software": __version__},
)


class HashCache:
    """Hashes of images that an earlier build computed with this software."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = _SCHEMA.empty_table()
        for path in folder.glob(f"{HASHES}*"):
            content = path.read_bytes()
            if path.name == _name(content):
                table = pa.ipc.open_file(content).read_all()
                self._known = table if table.schema.equals(_SCHEMA, check_metadata=True) else self._known

    def find(self, digests: Sequence[bytes]) -> tuple[ImageHashes, np.ndarray]:
        """The hashes of N images, and which of them are known, (N,) bool; those of others hold anything."""
        wanted = pa.array(digests, pa.binary(32))
        rows = pc.index_in(wanted, value_set=self._known["sha256"].combine_chunks())  # type: ignore[attr-defined]
        there = rows.is_valid().to_numpy(zero_copy_only=False)
        places = rows.to_numpy(zero_copy_only=False)[there].astype(np.int64)
        columns = {}
        for name in _NAMES:
            known = self._known[name].to_numpy()
            columns[name] = np.zeros(len(digests), known.dtype)
            columns[name][there] = known[places]
        return ImageHashes(**columns), there

    def keep(self, digests: Sequence[bytes], hashes: ImageHashes) -> None:
        """These hashes of N images in place of what was kept before."""
        table = pa.table(
            [pa.array(digests, pa.binary(32)), *(getattr(hashes, one) for one in _NAMES)], _SCHEMA
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_table(table)
        content = sink.getvalue().to_pybytes()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / _name(content), content)
        for path in self._folder.glob(f"{HASHES}*"):
            if path.name != _name(content):
                path.unlink(missing_ok=True)


def _name(content: bytes) -> str:
    return f"{HASHES}{hashlib.sha256(content).hexdigest()[:16]}.arrow"
