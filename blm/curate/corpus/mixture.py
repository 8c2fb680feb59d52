"""How much of each source and task family a corpus holds: caps, temperature, a floor for general instructions.

Only leaves conversations out, never repeats them: how often each is seen is up to training. Which ones stay depends on
their content and the seed alone, so what is added later does not exchange them. O(N log N), about 100 bytes each.

Reasons: family_cap, source_cap, balance, general_floor.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from blm.curate.corpus.conversation import content_digest
from blm.schemas.corpus import CorpusRecord, TaskFamily
from blm.schemas.yaml_model import FrozenModel

GENERAL = "general"
FAMILY_CAP, SOURCE_CAP, BALANCE, GENERAL_FLOOR = "family_cap", "source_cap", "balance", "general_floor"
Most = Annotated[int, Field(ge=0)]


class Mixture(FrozenModel):
    """What share each source and family gets. The default keeps everything."""

    per_source: int | None = Field(default=None, ge=1, description="most conversations of a source")
    per_family: int | None = Field(default=None, ge=1, description="most conversations of a task family")
    sources: dict[str, Most] = Field(default={}, description="most conversations of the sources named")
    families: dict[TaskFamily, Most] = Field(
        default={}, description="most conversations of the task families named"
    )
    temperature: float = Field(
        default=1.0,
        ge=1,
        description="sources share as their sizes to the power of 1/temperature; 1: as they are, large: equally",
    )
    conversations: int | None = Field(
        default=None,
        ge=1,
        description="of all; default: what the temperature asks for, with the smallest source whole",
    )
    least_general: float = Field(
        default=0.0, ge=0, lt=1, description="least share of general instructions; others are left out for it"
    )

    @property
    def keeps_everything(self) -> bool:
        return self == Mixture()


@dataclass(frozen=True)
class Entry:
    """What of a conversation decides whether it is drawn: `order` is a hash of content and seed."""

    row: int
    source: str
    family: str
    order: bytes


def entries(records: Iterable[tuple[int, CorpusRecord]], seed: int) -> list[Entry]:
    """Of (row, record) pairs."""
    return [
        Entry(
            row,
            one.source,
            one.task_family,
            hashlib.sha256(f"{seed} {content_digest(one)}".encode()).digest(),
        )
        for row, one in records
    ]


def left_out(listed: Sequence[Entry], mixture: Mixture) -> dict[int, str]:
    """Reason by row of those that the mixture leaves out."""
    reasons: dict[int, str] = {}
    kept = sorted(listed, key=lambda one: (one.order, one.row))

    def limit(reason: str, keys: Mapping[int, str], most: Mapping[str, int]) -> None:
        nonlocal kept
        used: Counter[str] = Counter()
        staying = []
        for one in kept:
            key = keys[one.row]
            used[key] += 1
            if used[key] <= most.get(key, len(listed)):
                staying.append(one)
            else:
                reasons[one.row] = reason
        kept = staying

    families = {one.row: one.family for one in listed}
    sources = {one.row: one.source for one in listed}
    limit(FAMILY_CAP, families, _caps(families.values(), mixture.per_family, mixture.families))
    limit(SOURCE_CAP, sources, _caps(sources.values(), mixture.per_source, mixture.sources))
    limit(BALANCE, sources, balanced(Counter(one.source for one in kept), mixture))
    general = {one.row: GENERAL if one.family == GENERAL else "" for one in listed}
    count = sum(one.family == GENERAL for one in kept)
    if mixture.least_general and count:
        limit(GENERAL_FLOOR, general, {"": int(count * (1 - mixture.least_general) / mixture.least_general)})
    return reasons


def mixture_note(listed: Sequence[Entry], reasons: Mapping[int, str], mixture: Mixture) -> str:
    """What a person who asked for this mixture should know about `left_out`; '' where there is nothing."""
    notes = []
    if BALANCE in reasons.values() and mixture.conversations is None:
        capped = (FAMILY_CAP, SOURCE_CAP)
        sizes = Counter(one.source for one in listed if reasons.get(one.row) not in capped)
        name, size = min(sizes.items(), key=lambda pair: (pair[1], pair[0]))
        notes.append(
            f"the smallest source stays whole, {name} with {size:,}: mixture.conversations asks for more"
        )
    if mixture.least_general and not any(one.family == GENERAL for one in listed):
        notes.append("there are no general instructions for mixture.least_general")
    return "; ".join(notes)


def balanced(sizes: Mapping[str, int], mixture: Mixture) -> dict[str, int]:
    """How many of each source the temperature and the size of the whole leave."""
    if not sizes:
        return {}
    weights = {name: size ** (1 / mixture.temperature) for name, size in sizes.items()}
    scale = min(size / weights[name] for name, size in sizes.items())
    if mixture.conversations is not None:
        scale = _scale(sizes, weights, mixture.conversations)
    # A hair above, so that rounding down does not lose one of a source that fits exactly.
    return {name: min(size, int(weights[name] * scale + 1e-9)) for name, size in sizes.items()}


def _scale(sizes: Mapping[str, int], weights: Mapping[str, float], wanted: int) -> float:
    """The scale at which Σ min(size, weight · scale) is `wanted`: sources that are used up stay whole."""
    remaining, open_weight = float(wanted), sum(weights.values())
    for name in sorted(sizes, key=lambda name: sizes[name] / weights[name]):
        scale = remaining / open_weight
        if sizes[name] > weights[name] * scale:
            return scale
        remaining -= sizes[name]
        open_weight -= weights[name]
    return max(size / weights[name] for name, size in sizes.items())


def _caps(keys: Iterable[str], most: int | None, named: Mapping[Any, int]) -> dict[str, int]:
    caps = {} if most is None else dict.fromkeys(keys, most)
    return caps | dict(named)
