"""Weighted mixtures: groups of windows drawn in given shares, evenly spread, in an order that is computed.

Position p belongs to the group on whose stretch of [0, 1) the point frac(p · φ + shift) falls, φ being the golden
ratio's fractional part. Such points fill the interval more evenly than random ones (Kronecker sequence; Weyl 1916):
after any number of draws, also within one batch, each group's count is its share to within a few draws. How often a
group came before position p has a closed form (a sum of floors), so a reader can begin anywhere. Within a group,
every window is drawn once before any is drawn again, in a keyed permutation like that of `EpochOrder`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from blm.schemas.errors import ConfigError, UnknownNameError
from blm.train.epoch_order import BatchOrder, shuffled

_BITS = 32
_CIRCLE = 1 << _BITS
_STEP = 0x9E3779B9  # 2³² · (√5 − 1)/2, odd: visits every point of the circle before it repeats one
_BLOCK = 4096
_REMEMBERED = 4


class MixtureOrder(BatchOrder):
    """An order over `count` items in which each group is drawn with its share of the positions.

    `groups` maps a name to its items (N_g,), which together are 0..count − 1; `weights` maps the same names to shares ≥
    0 of any sum. A group of weight 0 is never drawn. An epoch is `count` positions, whatever the weights.

    Raises:
        ConfigError: a weight is negative or not a number, all are 0, or the names differ.
    """

    def __init__(
        self,
        groups: Mapping[str, np.ndarray],
        weights: Mapping[str, float],
        batch_size: int,
        seed: int,
        *,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        super().__init__(sum(map(len, groups.values())), batch_size, seed, part=part, parts=parts)
        if groups.keys() != weights.keys():
            differing = ", ".join(sorted(groups.keys() ^ weights.keys()))
            raise ConfigError(f"Groups and weights differ in: {differing}.")
        if not all(0 <= weight < float("inf") for weight in weights.values()) or not any(weights.values()):
            raise ConfigError(f"Mixture weights must be at least 0 and not all 0: {dict(weights)}.")
        self.names = tuple(sorted(name for name, weight in weights.items() if weight > 0))
        self._items = [np.asarray(groups[name], dtype=np.int64) for name in self.names]
        if empty := [name for name, items in zip(self.names, self._items, strict=True) if not len(items)]:
            raise ConfigError(f"Mixture group '{empty[0]}' has a weight but no windows.")
        shares = np.array([weights[name] for name in self.names], dtype=np.float64)
        edges = np.rint(np.cumsum(shares) / shares.sum() * _CIRCLE).astype(np.uint64)
        edges[-1] = _CIRCLE
        self._edges = edges
        self._keys = [_number(name) for name in self.names]
        self._shift = int(np.random.SeedSequence((seed, _number("shift"))).generate_state(1)[0])
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of positions of each group that is drawn at all; they add up to 1."""
        widths = np.diff(self._edges.astype(np.float64), prepend=0.0) / _CIRCLE
        return dict(zip(self.names, widths.tolist(), strict=True))

    @property
    def identity(self) -> dict[str, int]:
        described = ";".join(
            f"{name}:{edge}:{len(items)}"
            for name, edge, items in zip(self.names, self._edges, self._items, strict=True)
        )
        return {**super().identity, "mixture": _number(described)}

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Indices at absolute positions."""
        group, turn = self._group_and_turn(positions)
        indices = np.empty(len(positions), dtype=np.int64)
        for number in np.unique(group):
            chosen = group == number
            items = self._items[number]
            place = shuffled(turn[chosen], len(items), (self.seed, self._keys[number]))
            indices[chosen] = items[place]
        return indices

    def _group_and_turn(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which group each position draws from, and how often that group came before, both (N,) int64."""
        group, turn = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        blocks = positions // _BLOCK
        for block in np.unique(blocks):
            chosen = blocks == block
            groups, turns = self._block(int(block))
            group[chosen], turn[chosen] = (each[positions[chosen] % _BLOCK] for each in (groups, turns))
        return group, turn

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Groups and turns of positions block · _BLOCK …, remembered while the stream passes through them."""
        if block not in self._blocks:
            computed = self._computed_block(block)
            self._blocks = dict([*self._blocks.items()][-_REMEMBERED:]) | {block: computed}
        return self._blocks[block]

    def _computed_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        first = block * _BLOCK
        along = np.arange(_BLOCK, dtype=np.uint64) + np.uint64(first % _CIRCLE)
        points = (along * np.uint64(_STEP) + np.uint64(self._shift)) % np.uint64(_CIRCLE)
        groups = np.searchsorted(self._edges, points, side="right")
        order = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups, minlength=len(self.names))
        begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        turns = np.empty(_BLOCK, dtype=np.int64)
        turns[order] = np.arange(_BLOCK) - begins[groups[order]]
        below = [0, *(_points_below(first, int(edge), self._shift) for edge in self._edges)]
        return groups, turns + np.diff(below)[groups]


def mixture_weights(groups: Mapping[str, np.ndarray], wanted: Mapping[str, float]) -> dict[str, float]:
    """A weight for every group from names or patterns such as `*/panda/*`; the first that matches a group counts.

    What a pattern weighs is divided among the groups it matches in proportion to their windows.

    Raises:
        UnknownNameError: a name or pattern matches no group; lists those there are.
        ConfigError: a group is matched by none.
    """
    matched: dict[str, list[str]] = {pattern: [] for pattern in wanted}
    for name in groups:
        pattern = next((one for one in wanted if one == name or fnmatchcase(name, one)), None)
        if pattern is None:
            raise ConfigError(
                f"The mixture gives no weight for '{name}'.", "Add it; a weight of 0 leaves it out."
            )
        matched[pattern].append(name)
    weights: dict[str, float] = {}
    for pattern, names in matched.items():
        if not any(name == pattern or fnmatchcase(name, pattern) for name in groups):
            raise UnknownNameError("mixture group", pattern, groups)
        windows = sum(len(groups[name]) for name in names)
        weights |= {name: wanted[pattern] * len(groups[name]) / windows for name in names}
    return weights


def group_items(labels: Sequence[str], segment: np.ndarray) -> dict[str, np.ndarray]:
    """Items by the label of their segment: `labels` per segment, `segment` (N,) the segment of each item."""
    names = sorted(set(labels))
    number = {name: index for index, name in enumerate(names)}
    of_item = np.array([number[label] for label in labels], dtype=np.int64)[segment]
    return {name: np.flatnonzero(of_item == index) for index, name in enumerate(names)}


def _points_below(count: int, edge: int, shift: int) -> int:
    """How many of the first `count` points of the sequence lie below `edge`."""
    wraps = _floor_sum(count, _CIRCLE, _STEP, shift)
    return wraps - _floor_sum(count, _CIRCLE, _STEP, shift + _CIRCLE - edge) + count


def _floor_sum(count: int, modulus: int, step: int, start: int) -> int:
    """Σ ⌊(step · i + start) / modulus⌋ over i = 0..count − 1, by the steps of Euclid's algorithm."""
    total = 0
    while True:
        whole, step = divmod(step, modulus)
        total += whole * count * (count - 1) // 2
        whole, start = divmod(start, modulus)
        total += whole * count
        reached = step * count + start
        if reached < modulus:
            return total
        count, start = divmod(reached, modulus)
        modulus, step = step, modulus


def _number(text: str) -> int:
    """63 bits that depend on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
