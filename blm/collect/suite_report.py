"""What came of a suite: results per pair with intervals and causes, for machines and for people."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from blm.collect.attempts import CollectSettings
from blm.collect.attempts_table import Attempt, cause
from blm.collect.contact_sheet import robot_sheet
from blm.collect.sim.variety import Variety
from blm.pages.proportion import wilson_interval
from blm.schemas.episode import RECORDING_FILE
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import write_atomically
from blm.schemas.yaml_model import FrozenModel

SUITE_FILE = "suite.json"
SUITE_VERSION = 1
HEAT_MAP = "success.png"
PICTURES = "pictures"
_SEEDS_SHOWN = 8
_WORST_SHOWN = 0.8


class Failures(FrozenModel):
    """Attempts that failed alike, by the seeds that show it."""

    cause: str
    seeds: tuple[int, ...]


class PairResult(FrozenModel):
    """What came of one robot at one task.

    `low` and `high` are the 95 % Wilson interval of the success rate. `missing` is how many episodes (without
    recording: attempts) are still to be made, and `error` why they cannot be.
    """

    robot: str
    task: str
    attempts: int
    succeeded: int
    kept: int
    missing: int
    steps: int
    low: float
    high: float
    failures: tuple[Failures, ...]
    error: str = ""

    @classmethod
    def of(cls, robot: str, task: str, attempts: Sequence[Attempt], missing: int, error: str) -> PairResult:
        """Count the attempts of one pair."""
        succeeded = sum(attempt.success for attempt in attempts)
        low, high = wilson_interval(succeeded, len(attempts)) if attempts else (0.0, 1.0)
        return cls(
            robot=robot,
            task=task,
            attempts=len(attempts),
            succeeded=succeeded,
            kept=sum(attempt.kept for attempt in attempts),
            missing=max(0, missing),
            steps=sum(attempt.steps for attempt in attempts if attempt.kept),
            low=round(low, 4),
            high=round(high, 4),
            failures=_failures(attempts),
            error=error,
        )

    @property
    def name(self) -> str:
        return f"{self.robot} {self.task}"

    @property
    def rate(self) -> float | None:
        """Share of attempts that succeeded; None without attempts."""
        return self.succeeded / self.attempts if self.attempts else None


class SuiteSummary(FrozenModel):
    """A suite as `suite.json` holds it; `settings` are what the recordings depend on."""

    output: Path
    settings: dict[str, Any]
    episodes: int
    interrupted: bool
    pairs: tuple[PairResult, ...]

    @property
    def complete(self) -> bool:
        return all(pair.missing == 0 for pair in self.pairs)

    @property
    def attempts(self) -> int:
        return sum(pair.attempts for pair in self.pairs)

    @property
    def succeeded(self) -> int:
        return sum(pair.succeeded for pair in self.pairs)

    @property
    def robots(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.robot for pair in self.pairs))

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.task for pair in self.pairs))

    def pair(self, robot: str, task: str) -> PairResult | None:
        return next((pair for pair in self.pairs if (pair.robot, pair.task) == (robot, task)), None)


def write_report(summary: SuiteSummary, figures: bool = True) -> None:
    """Write `suite.json` into the suite's folder and, with `figures`, everything that people look at."""
    if figures:
        output = summary.output
        write_atomically(output / HEAT_MAP, heat_map(summary))
        sheets = []
        for robot in summary.robots:
            sheet = robot_sheet(output / robot, summary.tasks) if _recorded(output / robot) else None
            if sheet is not None:
                sheets.append(f"{PICTURES}/{robot}.png")
                write_atomically(output / sheets[-1], sheet)
        write_atomically(output / "README.md", _readme(summary, sheets).encode())
    write_atomically(summary.output / SUITE_FILE, summary_json(summary).encode())


def summary_json(summary: SuiteSummary) -> str:
    """The text of `suite.json`; the place of the folder is not in it."""
    content = summary.model_dump(mode="json", exclude={"output"})
    totals = {"attempts": summary.attempts, "succeeded": summary.succeeded, "complete": summary.complete}
    return json.dumps({"version": SUITE_VERSION} | totals | content, indent=1, ensure_ascii=False) + "\n"


def read_summary(path: Path) -> SuiteSummary:
    """Read `suite.json`.

    Raises:
        DatasetError: the file is not one, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("version")
        if version != SUITE_VERSION:
            raise DatasetError(f"{path} has version {version}; this version of blm reads {SUITE_VERSION}.")
        fields = {name: content[name] for name in SuiteSummary.model_fields if name != "output"}
        return SuiteSummary.model_validate(fields | {"output": path.parent})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DatasetError(
            f"{path} does not describe a suite: {error}", "Choose another --output."
        ) from error


def percent(pair: PairResult | None) -> str:
    """A success rate in whole percent, of which only a perfect one is 100."""
    if pair is None or pair.rate is None:
        return "–"
    return f"{100 * pair.succeeded // pair.attempts} %"


def heat_map(summary: SuiteSummary) -> bytes:
    """Success of every pair as a PNG, 1200 pixels wide: percent, and successes of attempts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    robots, tasks = summary.robots, summary.tasks
    figure = Figure(figsize=(10, 1.5 + 0.75 * len(robots)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("success", ["#b0483c", "#e9c46a", "#cfe3c8", "#3a8a5f"])
    colours = colours.with_extremes(bad="#e6e6e3")
    found = [[summary.pair(robot, task) for task in tasks] for robot in robots]
    rates = [
        [float("nan") if pair is None or pair.rate is None else pair.rate for pair in row] for row in found
    ]
    image = axes.imshow(rates, cmap=colours, vmin=_WORST_SHOWN, vmax=1.0, aspect="auto")
    for y, row in enumerate(found):
        for x, pair in enumerate(row):
            dark = pair is not None and pair.rate is not None and not 0.83 < pair.rate < 0.985
            axes.text(
                x,
                y - 0.12,
                percent(pair),
                ha="center",
                va="center",
                fontsize=14,
                color="white" if dark else "#222",
            )
            if pair is not None and pair.attempts:
                count = f"{pair.succeeded} of {pair.attempts}"
                axes.text(
                    x,
                    y + 0.24,
                    count,
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if dark else "#444",
                )
    axes.set_xticks(range(len(tasks)), tasks, fontsize=11)
    axes.set_yticks(range(len(robots)), robots, fontsize=12)
    axes.tick_params(length=0)
    axes.set_xticks([x - 0.5 for x in range(1, len(tasks))], minor=True)
    axes.set_yticks([y - 0.5 for y in range(1, len(robots))], minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"Attempts that succeeded: {summary.succeeded} of {summary.attempts}", fontsize=13, loc="left", pad=10
    )
    bar = figure.colorbar(image, ax=axes, pad=0.015, fraction=0.03, extend="min")
    bar.set_ticks([0.8, 0.85, 0.9, 0.95, 1.0], labels=["80 %", "85", "90", "95", "100"])
    bar.outline.set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def success_table(summary: SuiteSummary) -> list[list[str]]:
    """Rows of text: a head, then a row per robot with '98 % (100/102)' per task and its total."""
    rows = [["robot", *summary.tasks, "all"]]
    for robot in summary.robots:
        cells = [summary.pair(robot, task) for task in summary.tasks]
        there = [pair for pair in cells if pair is not None]
        rows.append([robot, *map(_cell, cells), _share(there)])
    columns = [[pair for pair in summary.pairs if pair.task == task] for task in summary.tasks]
    rows.append(["all", *map(_share, columns), _share(summary.pairs)])
    return rows


def counts_by_task(summary: SuiteSummary) -> list[list[str]]:
    """The same turned round and short enough for a terminal: '100/102' per task and robot, shares at the edges."""
    rows = []
    for task in summary.tasks:
        cells = [summary.pair(robot, task) for robot in summary.robots]
        counts = ["–" if pair is None else f"{pair.succeeded}/{pair.attempts}" for pair in cells]
        rows.append([task, *counts, _percent([pair for pair in cells if pair is not None])])
    columns = [[pair for pair in summary.pairs if pair.robot == robot] for robot in summary.robots]
    return [*rows, ["all", *map(_percent, columns), _percent(summary.pairs)]]


def command_line(summary: SuiteSummary) -> str:
    """What to type to make this suite again."""
    words = [
        "blm",
        "collect",
        "suite",
        "--robots",
        ",".join(summary.robots),
        "--tasks",
        ",".join(summary.tasks),
    ]
    words += ["--episodes", str(summary.episodes), "--seed", str(summary.settings["seed"])]
    for key, value in summary.settings.items():
        field = CollectSettings.model_fields.get(key)
        if key in ("seed", "video") or field is None:
            continue
        default = field.default
        if key == "variety":
            value, default = str(Variety.model_validate(value)), str(default)
        if value == default:
            continue
        option = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return shlex.join([*words, "--output", summary.output.name])


def _failures(attempts: Iterable[Attempt]) -> tuple[Failures, ...]:
    """The most frequent cause first; equals in the order of their first seed."""
    failed = [attempt for attempt in attempts if not attempt.success]
    counts = Counter(cause(attempt) for attempt in failed).most_common()
    return tuple(
        Failures(cause=name, seeds=tuple(a.seed for a in failed if cause(a) == name)) for name, _ in counts
    )


def _recorded(root: Path) -> bool:
    return (root / RECORDING_FILE).is_file()


def _cell(pair: PairResult | None) -> str:
    return "–" if pair is None or not pair.attempts else f"{percent(pair)} ({pair.succeeded}/{pair.attempts})"


def _percent(pairs: Sequence[PairResult]) -> str:
    """Of all attempts, in tenths of a percent and rounded down: only if all succeeded it is 100."""
    succeeded, attempts = sum(pair.succeeded for pair in pairs), sum(pair.attempts for pair in pairs)
    return f"{1000 * succeeded // attempts / 10:g} %" if attempts else "–"


def _share(pairs: Sequence[PairResult]) -> str:
    succeeded, attempts = sum(pair.succeeded for pair in pairs), sum(pair.attempts for pair in pairs)
    return f"{_percent(pairs)} ({succeeded}/{attempts})" if attempts else "–"


def _readme(summary: SuiteSummary, sheets: Sequence[str]) -> str:
    low, high = wilson_interval(summary.succeeded, summary.attempts) if summary.attempts else (0.0, 1.0)
    lines = [
        "# Suite of demonstrations in simulation",
        "",
        f"{len(summary.robots)} robots × {len(summary.tasks)} tasks, {summary.attempts} attempts; succeeded: "
        f"{_share(summary.pairs)}, 95 % interval {100 * low:.1f}–{100 * high:.1f} %.",
        "",
        f"![success per robot and task]({HEAT_MAP})",
        "",
        *_markdown(success_table(summary)),
        "",
        "## Failures by cause",
        "",
        *_failure_lines(summary),
        "",
        "## Make it again",
        "",
        "```",
        command_line(summary),
        "```",
        "",
        "Attempt i of a pair starts from scene seed + i. `attempts.parquet` has every attempt with what the planner "
        "measured; `suite.json` has this page as data.",
    ]
    unfinished = [
        f"- {pair.name}: {pair.missing} missing. {pair.error}".rstrip()
        for pair in summary.pairs
        if pair.missing
    ]
    if unfinished:
        lines += ["", "## Not finished", "", *unfinished]
    for sheet in sheets:
        lines += ["", f"![the first success of {Path(sheet).stem} at each task]({sheet})"]
    return "\n".join(lines) + "\n"


def _failure_lines(summary: SuiteSummary) -> list[str]:
    rows = [["robot", "task", "cause", "times", "seeds"]]
    for pair in summary.pairs:
        for failure in pair.failures:
            shown = ", ".join(map(str, failure.seeds[:_SEEDS_SHOWN]))
            more = ", …" if len(failure.seeds) > _SEEDS_SHOWN else ""
            rows.append(
                [
                    pair.robot,
                    pair.task,
                    failure.cause.replace("|", "\\|"),
                    str(len(failure.seeds)),
                    shown + more,
                ]
            )
    return _markdown(rows) if len(rows) > 1 else ["None."]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(line) + " |" for line in lines]
