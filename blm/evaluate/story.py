"""The report of a whole run from recording to driving: what was recorded, kept, learnt, and how well it works."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from blm.evaluate.report import success_section
from blm.evaluate.results import HOLD_STILL, POLICY, REPLAY_MEAN, PhysicalSummary
from blm.pages.charts import band_chart, line_chart
from blm.pages.page import Chart, Figure, Picture, Section, Table, render_page
from blm.schemas.corpus import CorpusRecord, table_to_records
from blm.schemas.episode import ATTEMPTS_FILE
from blm.schemas.manifest import DROPPED_FILE, Manifest, read_manifest, write_atomically

MOMENTS = 6
"""Frames shown of the example episode."""


class ChapterRow(Protocol):
    """One stage of the work: its name, what it made, and its wall time."""

    @property
    def name(self) -> str: ...
    @property
    def result(self) -> str: ...
    @property
    def seconds(self) -> float: ...


def write_story(
    folder: Path, chapters: Sequence[ChapterRow], physical: PhysicalSummary, seconds: float
) -> Path:
    """Write `report.html` about the dataset, splits, corpus, runs and evaluation in `folder`; return its path."""
    splits = read_manifest(folder / "splits", "stage2-splits")
    corpus = read_manifest(folder / "corpus", "stage1-corpus")
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    figures = [
        Figure(f"{100 * physical.rate(POLICY):.0f} %", "policy, success in closed loop"),
        Figure(f"{100 * physical.rate(REPLAY_MEAN):.0f} %", "baseline: replay the mean trajectory"),
        Figure(f"{100 * physical.rate(HOLD_STILL):.0f} %", "baseline: hold still"),
        Figure(str(splits.counts.kept), "episodes kept"),
        Figure(f"{seconds / 60:.1f} min", "wall time"),
    ]
    sections = [
        _overview(chapters),
        _recorded(folder / "splits", pictures),
        _kept(folder, splits, corpus),
        _asked(folder / "corpus", pictures),
        _learnt(folder),
        success_section(physical),
    ]
    lead = "A simulated robot was recorded, the recording curated, two stages trained, and the policy put in the loop."
    page = render_page("From a recording to a policy that drives", lead, figures, sections)
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _overview(chapters: Sequence[ChapterRow]) -> Section:
    rows = [(chapter.name, chapter.result, f"{chapter.seconds:.0f} s") for chapter in chapters]
    return Section("What was done", table=Table(("stage", "result", "wall time"), rows, frozenset({2})))


def _recorded(splits: Path, pictures: Path) -> Section:
    """One example episode as frames of every camera, and the actions of all training episodes."""
    from blm.train.shard_reader import ShardBuild

    with ShardBuild(splits) as build:
        segments = build.segments("train")
        example = segments[0]
        moments = np.linspace(0, example.meta.frames - 1, MOMENTS).round().astype(int)
        strips = [np.hstack(list(build.images(example, camera, moments))) for camera in example.meta.cameras]
        sheet = pictures / "episode.png"
        Image.fromarray(np.vstack(strips)).save(sheet)
        actions = [build.action(segment) for segment in segments]
    meta = example.meta
    seconds = np.arange(max(len(track) for track in actions)) / meta.rate_hz
    tracks = {
        name.removesuffix(".pos"): _held([track[:, axis] for track in actions])
        for axis, name in enumerate(meta.axis_names)
    }
    cameras = " and ".join(meta.cameras)
    return Section(
        "What was recorded",
        f"{len(segments)} training episodes of {meta.embodiment} × {meta.task}, cameras {cameras}.",
        pictures=[Picture(sheet, f"One episode (“{meta.instruction}”), start to end: {cameras}.", wide=True)],
        charts=[
            Chart(
                band_chart(seconds, tracks, "seconds", "commanded axis value"),
                "Actions as sent, in axis units: median and 10–90 % of the training episodes.",
            )
        ],
    )


def _held(tracks: Sequence[np.ndarray]) -> np.ndarray:
    """(episodes, T): every track held at its last value up to the longest one's end."""
    longest = max(len(track) for track in tracks)
    return np.stack([np.pad(track, (0, longest - len(track)), mode="edge") for track in tracks])


def _kept(folder: Path, splits: Manifest, corpus: Manifest) -> Section:
    rows = [_attempts(folder / "dataset")]
    for name, manifest in (("episodes", splits), ("conversations", corpus)):
        counts = manifest.counts
        parts = ", ".join(f"{split} {count}" for split, count in manifest.splits.items())
        rows.append((name, str(counts.inputs), str(counts.kept), _reasons(counts.dropped), parts))
    dropped = pq.read_table(folder / "splits" / DROPPED_FILE).num_rows
    dropped += pq.read_table(folder / "corpus" / DROPPED_FILE).num_rows
    return Section(
        "What was kept, and what was dropped and why",
        f"Every input is kept or dropped with a reason; the {dropped} dropped ones are listed in dropped.parquet.",
        Table(("input", "in", "kept", "dropped", "splits"), rows, frozenset({1, 2})),
    )


def _attempts(dataset: Path) -> tuple[str, ...]:
    """The recording's row: attempts made, episodes kept, and why the others were not."""
    attempts = pq.read_table(dataset / ATTEMPTS_FILE, columns=["kept", "reason"]).to_pylist()
    causes = Counter(attempt["reason"] for attempt in attempts if not attempt["kept"])
    kept = len(attempts) - causes.total()
    return "attempts", str(len(attempts)), str(kept), _reasons(causes), "–"


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"


def _asked(corpus: Path, pictures: Path, examples: int = 6) -> Section:
    """Some conversations of the corpus, one per kind of question where possible, and how many there are."""
    records = table_to_records(pq.read_table(corpus / "records.parquet"))
    families: dict[str, list[CorpusRecord]] = {}
    for record in records:
        families.setdefault(record.task_family, []).append(record)
    rows = []
    for family, members in sorted(families.items()):
        question, answer = _exchange(members[len(members) // 2])
        rows.append((family, str(len(members)), question, answer))
    return Section(
        "What the model is asked in stage 1",
        "Questions about recorded frames; the answers are computed from the recorded state.",
        Table(("family", "conversations", "example question", "answer"), rows, frozenset({1})),
    )


def _exchange(record: CorpusRecord) -> tuple[str, str]:
    """The first question and its answer, as text."""
    texts = {
        message.role: " ".join(part.text for part in message.content if part.kind == "text")
        for message in reversed(record.messages)
    }
    return texts.get("user", ""), texts.get("assistant", "")


def _learnt(folder: Path) -> Section:
    charts = []
    for stage, caption in (
        ("stage1", "Stage 1: loss on the assistant's tokens."),
        ("stage2", "Stage 2: loss of the denoised action chunk."),
    ):
        rows = _losses(folder / stage / "losses.jsonl")
        name = "action_loss" if "action_loss" in rows[0] else "loss"
        series = {name.replace("_", " "): ([row["step"] for row in rows], [row[name] for row in rows])}
        charts.append(Chart(line_chart(series, "step", "loss", log_y=stage == "stage2"), caption))
    return Section("What was learnt", charts=charts)


def _losses(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
