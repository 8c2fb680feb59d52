"""The report of a closed-loop evaluation, as text for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blm.evaluate.results import POLICY, PairResult, PhysicalConfig, PhysicalSummary
from blm.pages.charts import success_chart
from blm.pages.page import Chart, Figure, Picture, Section, Table, render_page
from blm.schemas.manifest import write_atomically

COLUMNS = ("agent", "robot", "task", "success", "rate", "95 % interval")
PHYSICS_NOTE = (
    "Simulated in MuJoCo with blm's own scenes: a different benchmark from ManiSkill's published figures."
)


def result_rows(results: Sequence[PairResult]) -> list[tuple[str, ...]]:
    """One row of text per result, in the order of `COLUMNS`."""
    rows = []
    for result in results:
        low, high = result.interval
        interval = f"{100 * low:.0f}–{100 * high:.0f} %"
        count = f"{result.successes} of {result.rollouts}"
        rows.append((result.agent, result.robot, result.task, count, f"{100 * result.rate:.0f} %", interval))
    return rows


def success_section(summary: PhysicalSummary) -> Section:
    """The success table with its chart and pictures: the heart of every report."""
    rows = [
        (f"{result.agent} · {result.robot} {result.task}", result.rate, *result.interval)
        for result in summary.results
    ]
    pictures = [_picture(path) for path in summary.pictures]
    return Section(
        heading="Closed-loop success",
        text=f"Fresh seeds, none used in training; every agent starts from the same scenes. {PHYSICS_NOTE}",
        table=Table(COLUMNS, result_rows(summary.results), frozenset({3, 4, 5})),
        charts=[Chart(success_chart(rows), "Success by agent.")],
        pictures=pictures,
    )


def _picture(path: Path) -> Picture:
    if path.suffix == ".gif":
        return Picture(
            path, f"{path.stem}: rollouts of the policy; the edge turns green on success, red on failure."
        )
    return Picture(path, f"{path.stem}: one rollout per row, from start to end.", wide=True)


def write_physical_report(config: PhysicalConfig, summary: PhysicalSummary) -> Path:
    """Write `report.html` into the evaluation's output folder and return its path."""
    policy = [result for result in summary.results if result.agent == POLICY]
    figures = [
        Figure(f"{100 * summary.rate(POLICY):.0f} %", "policy success, mean of pairs"),
        Figure(str(len(policy)), "robot × task pairs"),
        Figure(str(config.rollouts), "rollouts per pair and agent"),
        Figure(f"{summary.seconds:.0f} s", "wall time"),
    ]
    lead = "The policy sees pixels, proprioception and the instruction. Baselines see nothing."
    page = render_page(f"Evaluation of {config.run.name}", lead, figures, [success_section(summary)])
    path = config.output / "report.html"
    write_atomically(path, page.encode())
    return path
