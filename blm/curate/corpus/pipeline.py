"""Runs conversations through the stages: in batches and anywhere where each is looked at alone, else here, in order.

    read ─▶ licence ─▶ validate ─▶ normalise ─▶ quality ─▶ language ─▶ mask ─▶ dedup ─▶ split ─▶ written
            └─ clean: anywhere, kept per source ┘└─ judge: the same, texts only ┘└─ admit: in order ┘

Memory: a batch, of about `_BATCH_BYTES` of media, and with processes or a cluster those that are under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, cast

from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.stages import (
    CLEANING_STAGES,
    JUDGING_STAGES,
    ORDERED_STAGES,
    READ,
    Stage,
    StageReport,
)
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
    """Stages that look at one conversation at a time, for batches; media are looked at and not changed.

    `stages` is 'clean' (those that need media) or 'judge'.
    """

    def __init__(self, config: CorpusConfig, stages: Literal["clean", "judge"]) -> None:
        self._config, self._which = config, stages
        self._line: Line | None = None

    def __reduce__(self) -> tuple[type[RecordStages], tuple[CorpusConfig, str]]:
        return RecordStages, (self._config, self._which)

    def __call__(self, conversations: Sequence[Conversation]) -> Checked:
        stages = CLEANING_STAGES if self._which == "clean" else JUDGING_STAGES
        self._line = line = self._line or Line(stages, self._config)
        passed = [line.through(conversation) for conversation in conversations]
        items = [item if isinstance(item, Drop) else item.record for item in passed]
        return Checked(items, tuple(report.take() for report in line.reports))


def judging_reports() -> tuple[StageReport, ...]:
    """Of each stage of `Pipeline.judge`, with nothing counted."""
    return tuple(StageReport(name) for name in JUDGING_STAGES)


class Pipeline:
    """Runs conversations through all stages, counting; what is dropped, from reading on, goes to `drops`."""

    def __init__(self, config: CorpusConfig, engine: Engine | None = None) -> None:
        self._config, self._engine = config, engine or LocalEngine()
        self._cleaned = tuple(StageReport(name) for name in (READ, *CLEANING_STAGES))
        self._judged = judging_reports()
        self._ordered = Line(ORDERED_STAGES, config)
        self._compared: list[StageReport] = []
        self.drops: list[Drop] = []

    @property
    def reports(self) -> tuple[StageReport, ...]:
        """Of reading and of each stage, in order."""
        return (*self._cleaned, *self._judged, *self._ordered.reports, *self._compared)

    def extend(self, reports: Iterable[StageReport], drops: Iterable[Drop]) -> None:
        """Count what a comparison of all that is left did too."""
        self._compared += reports
        self.drops += drops

    def run(self, items: Iterable[Conversation | Drop]) -> Iterator[Conversation]:
        """The conversations that pass every stage, in order."""
        return self.admit(self.judge(self.clean(items), self._judged))

    def clean(self, items: Iterable[Conversation | Drop]) -> Iterator[Conversation | Drop]:
        """What becomes of all that is read in the stages that need media; nothing is counted yet."""
        stages = RecordStages(self._config, "clean")
        for item, outcome, _ in self._checked(stages, items, with_media=True):
            if isinstance(outcome, Drop):
                yield outcome
            else:
                yield cast(Conversation, item)._replace(record=outcome)

    def judge(
        self, cleaned: Iterable[Conversation | Drop], reports: Sequence[StageReport]
    ) -> Iterator[Conversation | Drop]:
        """What becomes of what `clean` gave in the stages that look at texts; they are counted in `reports` alone."""
        stages = RecordStages(self._config, "judge")
        for item, outcome, counted in self._checked(stages, cleaned, with_media=False):
            for report, more in zip(reports, counted, strict=False):
                report.add(more)
            if isinstance(outcome, Drop):
                yield outcome
            else:
                yield cast(Conversation, item)._replace(record=outcome)

    def count_judged(self, reports: Sequence[StageReport]) -> None:
        """Count what the stages of `judge` did with some of the items."""
        for report, more in zip(self._judged, reports, strict=True):
            report.add(more)

    def admit(self, judged: Iterable[Conversation | Drop]) -> Iterator[Conversation]:
        """Of what `judge` gave, those that pass the other stages, in order; all are counted but in the stages of
        `judge`."""
        for item in judged:
            self._count_cleaned(item)
            outcome = self._ordered.through(item) if isinstance(item, Conversation) else item
            if isinstance(outcome, Conversation):
                yield outcome
            else:
                self.drops.append(outcome)

    def _checked(
        self, stages: RecordStages, items: Iterable[Conversation | Drop], with_media: bool
    ) -> Iterator[tuple[Conversation | Drop, CorpusRecord | Drop, tuple[StageReport, ...]]]:
        """Each item with what became of it, and, with the first of a batch, what its stages counted."""
        under_way: deque[list[Conversation | Drop]] = deque()

        def to_check() -> Iterator[list[Conversation]]:
            for batch in _batches(items):
                under_way.append(batch)
                there = [item for item in batch if isinstance(item, Conversation)]
                yield there if with_media else [item._replace(media=()) for item in there]

        for checked in self._engine.stream(stages, to_check()):
            outcomes, reports = iter(checked.items), checked.reports
            for item in under_way.popleft():
                yield item, item if isinstance(item, Drop) else next(outcomes), reports
                reports = ()

    def _count_cleaned(self, item: Conversation | Drop) -> None:
        """Count an item in reading and in every stage of cleaning that it came to."""
        for report in self._cleaned:
            report.inputs += 1
            if isinstance(item, Drop) and item.stage == report.name:
                report.dropped[item.reason] += 1
                return


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
