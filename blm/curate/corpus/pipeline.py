"""Runs conversations through the stages: in batches and anywhere where each is looked at alone, else here, in order.

    read ─▶ batches ─▶ licence … mask (wherever the engine works) ─▶ dedup ─▶ split (here) ─▶ written

Memory: a batch, of about `_BATCH_BYTES` of media, and with processes or a cluster those that are under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.stages import ORDERED_STAGES, READ, RECORD_STAGES, Stage, StageReport
from blm.curate.engine import Engine, LocalEngine
from blm.schemas.corpus import CorpusRecord

_BATCH_ITEMS, _BATCH_BYTES = 256, 4_000_000


class Line:
    """Stages one after the other, each with its report."""

    def __init__(
        self, stages: Mapping[str, Callable[[CorpusConfig, StageReport], Stage]], config: CorpusConfig
    ) -> None:
        self.reports = tuple(StageReport(name) for name in stages)
        self._stages = [
            make(config, report) for make, report in zip(stages.values(), self.reports, strict=True)
        ]

    def through(self, item: Conversation) -> Conversation | Drop:
        """The conversation as the last stage leaves it, or the drop it became, with its stage."""
        for report, stage in zip(self.reports, self._stages, strict=True):
            report.inputs += 1
            found = stage(item)
            if isinstance(found, Drop):
                report.dropped[found.reason] += 1
                return replace(found, stage=report.name)
            item = found
        return item


class Checked(NamedTuple):
    """What became of a batch: a record or drop for each conversation, and what the stages counted."""

    items: list[CorpusRecord | Drop]
    reports: tuple[StageReport, ...]


class RecordStages:
    """The stages that look at one conversation at a time, for batches; media are looked at and not changed."""

    def __init__(self, config: CorpusConfig) -> None:
        self._config = config
        self._line: Line | None = None

    def __reduce__(self) -> tuple[type[RecordStages], tuple[CorpusConfig]]:
        return RecordStages, (self._config,)

    def __call__(self, conversations: Sequence[Conversation]) -> Checked:
        self._line = line = self._line or Line(RECORD_STAGES, self._config)
        passed = [line.through(conversation) for conversation in conversations]
        items = [item if isinstance(item, Drop) else item.record for item in passed]
        return Checked(items, tuple(report.take() for report in line.reports))


class Pipeline:
    """Runs conversations through all stages, counting; what is dropped, from reading on, goes to `drops`."""

    def __init__(self, config: CorpusConfig, engine: Engine | None = None) -> None:
        self._engine = engine or LocalEngine()
        self._checks = RecordStages(config)
        self._checked = tuple(StageReport(name) for name in RECORD_STAGES)
        self._ordered = Line(ORDERED_STAGES, config)
        self._read = StageReport(READ)
        self._compared: list[StageReport] = []
        self.drops: list[Drop] = []

    @property
    def reports(self) -> tuple[StageReport, ...]:
        """Of reading and of each stage, in order."""
        return (self._read, *self._checked, *self._ordered.reports, *self._compared)

    def extend(self, reports: Iterable[StageReport], drops: Iterable[Drop]) -> None:
        """Count what a comparison of all that is left did too."""
        self._compared += reports
        self.drops += drops

    def run(self, items: Iterable[Conversation | Drop]) -> Iterator[Conversation]:
        """The conversations that pass every stage, in order."""
        under_way: deque[list[Conversation | Drop]] = deque()

        def to_check() -> Iterator[list[Conversation]]:
            for batch in _batches(items):
                under_way.append(batch)
                yield [item for item in batch if isinstance(item, Conversation)]

        for checked in self._engine.stream(self._checks, to_check()):
            for report, counted in zip(self._checked, checked.reports, strict=True):
                report.add(counted)
            yield from self._ordered_ones(under_way.popleft(), checked.items)

    def _ordered_ones(
        self, batch: Iterable[Conversation | Drop], checked: Iterable[CorpusRecord | Drop]
    ) -> Iterator[Conversation]:
        """Those of a batch that pass the remaining stages."""
        outcomes = iter(checked)
        for item in batch:
            self._read.inputs += 1
            if isinstance(item, Drop):
                self._read.dropped[item.reason] += 1
                self.drops.append(replace(item, stage=READ))
                continue
            outcome = next(outcomes)
            if not isinstance(outcome, Drop):
                outcome = self._ordered.through(item._replace(record=outcome))
            if isinstance(outcome, Drop):
                self.drops.append(outcome)
            else:
                yield outcome


def _batches(items: Iterable[Conversation | Drop]) -> Iterator[list[Conversation | Drop]]:
    batch: list[Conversation | Drop] = []
    size = 0
    for item in items:
        batch.append(item)
        size += sum(map(len, item.media)) if isinstance(item, Conversation) else 0
        if len(batch) >= _BATCH_ITEMS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
