"""The whole story in one script: record, curate, train both stages, drive the robot, report.

    simulated SO-100 ──collect──▶ dataset ──curate──▶ splits, corpus ──train──▶ stage 1, stage 2 ──evaluate──▶ table

Everything here calls the same functions as the command line. It is small, but nothing in it is faked: the policy
sees pixels, proprioception and the instruction only, and is judged on scenes it never saw.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from blm.schemas.errors import OutputExistsError
from blm.schemas.manifest import write_atomically
from blm.schemas.progress import Progress, silent
from blm.schemas.yaml_model import FrozenModel

if TYPE_CHECKING:
    from blm.evaluate.results import PhysicalSummary

MARKER = "demo.json"
"""Written last; also how a folder is recognised as a demo that may be replaced."""


class DemoConfig(FrozenModel):
    """How large the story is. The defaults fit into eight minutes on two cores."""

    output: Path = Path("demo")
    robot: str = "so100"
    task: str = "push-cube"
    episodes: int = 250
    image_size: int = 128
    stage1_steps: int = 60
    stage2_steps: int = 800
    cameras: tuple[str, ...] = ("top",)
    rollouts: int = 50
    workers: int = 2
    seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Chapter:
    """One stage of the story: what it made, in a line, and how long it took."""

    name: str
    result: str
    seconds: float


@dataclass(frozen=True)
class DemoSummary:
    """What the demo came to."""

    report: Path
    chapters: tuple[Chapter, ...]
    physical: PhysicalSummary
    seconds: float


@dataclass
class _Story:
    """Runs chapters one after the other and remembers what each returned."""

    results: dict[str, Any] = field(default_factory=dict)
    chapters: list[Chapter] = field(default_factory=list)

    def tell(self, name: str, work: Callable[[], Any], describe: Callable[[Any], str]) -> Any:
        started = monotonic()
        result = work()
        self.chapters.append(Chapter(name, describe(result), monotonic() - started))
        self.results[name] = result
        return result


def run_demo(config: DemoConfig, progress: Progress = silent) -> DemoSummary:
    """Tell the story into `config.output` and return its figures.

    Raises:
        OutputExistsError: the folder is a file, or holds something that no demo wrote, or a demo and `overwrite` is
            not set.
    """
    started = monotonic()
    _clear(config)
    story = _Story()
    _record(config, story, progress)
    _curate(config, story, progress)
    _train(config, story, progress)
    physical = _evaluate(config, story, progress)
    from blm.evaluate.story import write_story

    seconds = monotonic() - started
    report = write_story(config.output, story.chapters, physical, seconds)
    summary = DemoSummary(report, tuple(story.chapters), physical, seconds)
    _write_marker(config, summary)
    return summary


def _clear(config: DemoConfig) -> None:
    output = config.output
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"{output} is a file.", "Choose another --output.")
    if not output.exists() or not any(output.iterdir()):
        return
    is_demo = (output / MARKER).is_file() or (output / "dataset").is_dir()
    if not is_demo:
        raise OutputExistsError(f"{output} holds something else than a demo.", "Choose another --output.")
    if not config.overwrite:
        raise OutputExistsError(
            f"{output} holds a demo already.", "Add --overwrite, or choose another --output."
        )
    shutil.rmtree(output)


def _record(config: DemoConfig, story: _Story, progress: Progress) -> None:
    from blm.collect.session import CollectConfig, collect

    settings = CollectConfig(
        robot=config.robot,
        task=config.task,
        episodes=config.episodes,
        seed=config.seed,
        output=config.output / "dataset",
        image_size=config.image_size,
        workers=config.workers,
    )
    story.tell(
        "collect",
        lambda: collect(settings, progress),
        lambda done: (
            f"{done.episodes} episodes, {done.succeeded} of {done.attempts} attempts succeeded, "
            f"{done.frames_per_s:.0f} frames/s"
        ),
    )


def _curate(config: DemoConfig, story: _Story, progress: Progress) -> None:
    from blm.curate.corpus.build import build_corpus
    from blm.curate.corpus.config import CorpusConfig, Source
    from blm.curate.episodes.build import build_splits
    from blm.curate.episodes.config import DatasetSource, SplitsConfig

    dataset = config.output / "dataset"
    splits = SplitsConfig(
        datasets=(DatasetSource(path=dataset),), output=config.output / "splits", workers=config.workers
    )
    story.tell("build-splits", lambda: build_splits(splits, progress), lambda done: _counts(done, "episodes"))
    corpus = CorpusConfig(sources=(Source(kind="lerobot", path=dataset),), output=config.output / "corpus")
    story.tell(
        "build-corpus", lambda: build_corpus(corpus, progress), lambda done: _counts(done, "conversations")
    )


def _counts(summary: Any, unit: str) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary.counts.dropped.items()) or "none"
    return f"{summary.counts.inputs} {unit} in, {summary.counts.kept} kept, dropped: {dropped}"


def _train(config: DemoConfig, story: _Story, progress: Progress) -> None:
    from blm.train.recipes import stage1_config, stage2_config
    from blm.train.stage1 import train_stage1
    from blm.train.stage2 import train_stage2

    # The tiny backbone starts from built-in features, not from pretraining: sixty steps of language would only blur
    # what Stage II taps (docs/log.md has the figures), so everything up to the tap stays as it is.
    stage1 = stage1_config(
        {"freeze": "[vision, merger]", "freeze_blocks": "2"},
        corpus=config.output / "corpus",
        output=config.output / "stage1",
        backbone="tiny",
        steps=config.stage1_steps,
        seed=config.seed,
    )
    story.tell("stage1", lambda: train_stage1(stage1, progress), _training)
    stage2 = stage2_config(
        "tiny",
        splits=config.output / "splits",
        output=config.output / "stage2",
        backbone=str(config.output / "stage1" / "backbone"),
        steps=config.stage2_steps,
        cameras=config.cameras,
        seed=config.seed,
    )
    story.tell("stage2", lambda: train_stage2(stage2, progress), _training)


def _training(summary: Any) -> str:
    figures = f"{summary.steps} steps, {summary.samples_per_second:.0f} samples/s, loss {summary.losses['loss']:.3g}"
    held_out = ", ".join(f"{name} {value:.3g}" for name, value in list(summary.validation.items())[:2])
    return f"{figures}; held out: {held_out}"


def _evaluate(config: DemoConfig, story: _Story, progress: Progress) -> PhysicalSummary:
    from blm.evaluate.physical import evaluate_physical
    from blm.evaluate.results import POLICY, PhysicalConfig

    settings = PhysicalConfig(
        run=config.output / "stage2",
        output=config.output / "evaluation",
        rollouts=config.rollouts,
        workers=config.workers,
    )
    return story.tell(
        "evaluate",
        lambda: evaluate_physical(settings, progress),
        lambda done: f"policy {100 * done.rate(POLICY):.0f} % over {config.rollouts} fresh scenes",
    )


def _write_marker(config: DemoConfig, summary: DemoSummary) -> None:
    content = {
        "config": config.model_dump(mode="json"),
        "chapters": [vars(chapter) for chapter in summary.chapters],
        "seconds": summary.seconds,
        "report": summary.report.name,
    }
    write_atomically(config.output / MARKER, json.dumps(content, indent=1).encode() + b"\n")
