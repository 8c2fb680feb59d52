"""In which order windows are drawn: seeded, split over ranks, and resumable in O(1) because it is computed.

Positions 0, 1, 2, … run on through all epochs. Batch b of part p of `parts` holds the positions
(b · parts + p) · batch_size …, so parts never share a position and none is left out. What lies at a position depends
on the seed alone, not on the batch size, the parts or who asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import numpy as np

from blm.schemas.errors import ConfigError

TOGETHER = 32
"""Batches whose order is computed at once: for a single small one, NumPy's cost per call would outweigh the work."""


class BatchOrder(ABC):
    """An endless order over `count` items in batches; an epoch is `count` positions. Subclasses say what lies where."""

    def __init__(self, count: int, batch_size: int, seed: int, *, part: int = 0, parts: int = 1) -> None:
        if not 0 <= part < parts:
            raise ConfigError(f"part {part} is not within 0..{parts - 1}.")
        if count < 1 or batch_size < 1:
            raise ConfigError(f"count ({count}) and batch_size ({batch_size}) must be at least 1.")
        self.count, self.batch_size, self.seed, self.part, self.parts = count, batch_size, seed, part, parts
        self.batches = 0
        self._computed: tuple[int, np.ndarray] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        """Indices of the next batch, (batch_size,) int64."""
        self.batches += 1
        return self.indices(self.batches - 1)

    def indices(self, batch: int) -> np.ndarray:
        """Indices of this part's batch number `batch`, (batch_size,) int64. Asking in ascending order is fastest."""
        first = batch // TOGETHER * TOGETHER
        if self._computed is None or self._computed[0] != first:
            starts = (np.arange(first, first + TOGETHER) * self.parts + self.part) * self.batch_size
            positions = starts[:, None] + np.arange(self.batch_size)
            self._computed = first, self.at(positions.ravel()).reshape(positions.shape)
        return self._computed[1][batch - first].copy()

    def positions(self, batch: int) -> np.ndarray:
        """Absolute positions of this part's batch number `batch`, (batch_size,) int64."""
        first = (batch * self.parts + self.part) * self.batch_size
        return np.arange(first, first + self.batch_size)

    @abstractmethod
    def at(self, positions: np.ndarray) -> np.ndarray:
        """Indices (each in 0..count − 1) at absolute positions; position // count is the epoch."""

    @property
    def identity(self) -> dict[str, int]:
        """What a saved place belongs to; a place of another identity is refused."""
        return {"count": self.count, "seed": self.seed}

    def state_dict(self, behind: int = 0) -> dict[str, int]:
        """The place `behind` batches ago: what to save where so many were drawn but not used yet."""
        batches = self.batches - behind
        position = batches * self.parts * self.batch_size
        return {
            "batches": batches,
            "epoch": position // self.count,
            "position": position % self.count,
            **self.identity,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved place.

        Raises:
            ConfigError: the saved order was over another number of items, or had another seed or mixture.
        """
        identity = self.identity
        for name in sorted({"count", "seed"} | ({"mixture"} & (identity.keys() | state.keys()))):
            if state.get(name) != identity.get(name):
                raise ConfigError(
                    f"The saved reader position is for {name} {state.get(name)}, not {identity.get(name)}.",
                    "Resume with the same splits, seed and mixture.",
                )
        self.batches = state["batches"]


class EpochOrder(BatchOrder):
    """Each item once per epoch. The last batch of an epoch is filled from the next epoch.

    The order of an epoch is a keyed permutation that is computed, not stored (a Feistel network with cycle walking;
    Black & Rogaway 2002).
    """

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Indices at absolute positions (position // count is the epoch)."""
        return shuffled(positions, self.count, (self.seed,))


def shuffled(positions: np.ndarray, count: int, key: tuple[int, ...]) -> np.ndarray:
    """Items at positions of an endless sequence that holds a fresh permutation of 0..count − 1 in each epoch."""
    indices = np.empty(len(positions), dtype=np.int64)
    epochs = positions // count
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indices[chosen] = permuted(positions[chosen] % count, count, (*key, int(epoch)))
    return indices


def permuted(positions: np.ndarray, count: int, key: tuple[int, ...], rounds: int = 4) -> np.ndarray:
    """Images of `positions` (each in 0..count − 1) under a permutation of 0..count − 1 chosen by `key`."""
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence(key).generate_state(rounds, np.uint64)
    values = positions.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys, np.uint64(half), mask)
        outside = values >= count
    return values.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, half: np.uint64, mask: np.uint64) -> np.ndarray:
    left, right = values >> half, values & mask
    for key in keys:
        mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)  # wraps around on purpose
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        left, right = right, left ^ (mixed & mask)
    return (left << half) | right
