"""What tests of the reader share with the processes they start; imports neither torch nor pytest."""

from __future__ import annotations

import hashlib

import numpy as np

from blm.train.shard_reader import Batch


def brighter(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.clip(images.astype(int) + generator.integers(-40, 40), 0, 255).astype(np.uint8)


def digest(batch: Batch) -> str:
    found = hashlib.sha256()
    for name, values in sorted(batch.items()):
        found.update(name.encode())
        found.update(repr(values).encode() if isinstance(values, list) else np.asarray(values).tobytes())
    return found.hexdigest()
