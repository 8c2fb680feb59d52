"""How much faster than real time demonstrations are recorded, and where the time goes.

Every robot at every task, two cameras of 256×256 at the robot's 20 Hz, through the path that `blm collect` takes:
planner, physics, pictures, H.264, LeRobot dataset. First pair by pair in one process, in CPU seconds, which holds on a
machine that others use too; with `--suite` then as one suite with two workers, in wall time.

Run: make bench ARGS=benchmarks/collection.py, or .venv/bin/python benchmarks/collection.py --robots panda --episodes 5
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from typing import Any

# As in a suite's workers: the software renderer draws in the thread that asks.
os.environ.setdefault("LP_NUM_THREADS", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

STAGES = ("planning", "physics", "rendering", "encoding", "writing")
CORES = 2
TARGET = 10.0


class Stopwatch:
    """CPU seconds of each stage, a stage within a stage counting for the inner one only; any thread may report."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def time_method(self, owner: type, method: str, stage: str) -> None:
        """From now on the method's CPU time counts for `stage`; for methods that the main thread calls."""
        original = getattr(owner, method)

        @wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            self._inner.append(0.0)
            try:
                return original(*arguments, **named)
            finally:
                spent = time.thread_time() - began
                self.seconds[stage] += spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        setattr(owner, method, timed)

    def time_thread(self, owner: type, method: str, stage: str) -> None:
        """The method is all that its thread does: its CPU time counts for `stage`."""
        original = getattr(owner, method)

        @wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            try:
                return original(*arguments, **named)
            finally:
                self.seconds[stage] += time.thread_time()

        setattr(owner, method, timed)


def instrument() -> Stopwatch:
    """Time the parts of a recording in this process from outside."""
    from blm.collect.dataset_writer import DatasetWriter
    from blm.collect.episode_part import EpisodeWriter
    from blm.collect.planning.planner import PlannerAgent
    from blm.collect.sim.environment import SimulatedEnvironment
    from blm.collect.sim.render import CameraRenderer
    from blm.collect.video import VideoEncoder

    watch = Stopwatch()
    for method in ("reset", "act"):
        watch.time_method(PlannerAgent, method, "planning")
    for method in ("reset", "step"):
        watch.time_method(SimulatedEnvironment, method, "physics")
    watch.time_method(CameraRenderer, "images", "rendering")
    watch.time_method(VideoEncoder, "add", "encoding")
    watch.time_thread(VideoEncoder, "_encode", "encoding")
    for method in ("add", "finish"):
        watch.time_method(EpisodeWriter, method, "writing")
    for method in ("commit", "log_attempt"):
        watch.time_method(DatasetWriter, method, "writing")
    return watch


def measure_pair(robot: str, task: str, options: argparse.Namespace, watch: Stopwatch) -> dict[str, float]:
    """Record one pair here; returns demonstration seconds, CPU seconds in all, and those of each stage."""
    from blm.collect.attempts import CollectConfig, open_simulation
    from blm.collect.session import collect

    opening = 0.0

    def open_timed(config: CollectConfig) -> Any:
        nonlocal opening
        began = time.process_time()
        workcell = open_simulation(config)
        workcell[0].reset(0)  # makes the graphics context
        opening = time.process_time() - began
        watch.seconds.clear()
        return workcell

    with tempfile.TemporaryDirectory() as folder:
        config = CollectConfig(
            robot=robot,
            task=task,
            episodes=options.episodes,
            image_size=options.image_size,
            shadows=options.shadows,
            output=Path(folder) / "dataset",
        )
        began = time.process_time()
        summary = collect(config, open_workcell=open_timed)
        cpu = time.process_time() - began - opening
    demonstrated = summary.frames / config.embodiment().control_rate_hz
    return {"demonstrated": demonstrated, "cpu": cpu, "opening": opening} | watch.seconds


def measure_suite(options: argparse.Namespace) -> None:
    """Record a suite with as many workers as cores, and print its pace in wall and in CPU time."""
    from blm.collect.suite import SuiteConfig, collect_suite

    with tempfile.TemporaryDirectory() as folder:
        config = SuiteConfig(
            robots=options.robots,
            tasks=options.tasks,
            episodes=options.episodes,
            image_size=options.image_size,
            shadows=options.shadows,
            output=Path(folder) / "suite",
            workers=CORES,
        )
        began, cpu = time.perf_counter(), _cpu_with_children()
        summary = collect_suite(config)
        wall, cpu = time.perf_counter() - began, _cpu_with_children() - cpu
    rates = {pair.robot: pair.embodiment.control_rate_hz for pair in config.pairs()}
    demonstrated = sum(pair.steps / rates[pair.robot] for pair in summary.pairs)
    print(
        f"\nsuite with {CORES} workers, all included (start of the workers, scenes, failures, report): "
        f"{demonstrated:.0f} s of demonstrations in {wall:.0f} s = {demonstrated / wall:.1f}× real time; "
        f"{cpu:.0f} CPU s on {CORES} cores = {CORES * demonstrated / cpu:.1f}×"
    )


def _cpu_with_children() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _line(name: str, row: dict[str, float]) -> str:
    shares = [row.get(stage, 0.0) / row["cpu"] for stage in STAGES]
    shares.append(1.0 - sum(shares))
    pace = CORES * row["demonstrated"] / row["cpu"]
    columns = "".join(f"{100 * share:10.0f} %" for share in shares)
    return f"{name:<28}{row['demonstrated']:8.1f} s{row['cpu']:8.2f} s{pace:8.1f} ×{columns}"


def _sum(rows: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for row in rows:
        for key, value in row.items():
            total[key] += value
    return total


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _options() -> argparse.Namespace:
    from blm.schemas.embodiment import embodiment_names
    from blm.schemas.task import task_names

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--robots", type=_names, default=embodiment_names(), help="names with commas (default: all)"
    )
    parser.add_argument("--tasks", type=_names, default=task_names(), help="names with commas (default: all)")
    parser.add_argument("--episodes", type=int, default=3, help="per pair (default: 3)")
    parser.add_argument("--image-size", type=int, default=256, help="pixels (default: 256)")
    parser.add_argument("--no-shadows", dest="shadows", action="store_false", help="pictures without shadows")
    parser.add_argument("--suite", action="store_true", help="also record them as one suite, in wall time")
    return parser.parse_args()


def main() -> None:
    """Print a line per pair, per robot and for all."""
    options = _options()
    watch = instrument()
    measure_pair(options.robots[0], options.tasks[0], options, watch)  # imports and first calls
    stages = "".join(f"{stage:>12}" for stage in (*STAGES, "other"))
    print(f"{'':<28}{'recorded':>10}{'CPU':>10}{f'{CORES} cores':>10}{stages}")
    everything = []
    for robot in options.robots:
        rows = []
        for task in options.tasks:
            rows.append(measure_pair(robot, task, options, watch))
            print(_line(f"{robot} {task}", rows[-1]), flush=True)
        print(_line(robot, _sum(rows)) + "\n")
        everything += rows
    total = _sum(everything)
    print(_line("all", total))
    pace = CORES * total["demonstrated"] / total["cpu"]
    print(f"{pace:.1f}× real time on {CORES} cores; the target is {TARGET:.0f}×")
    print(f"opening a workcell (not in the above): {total['opening'] / len(everything):.2f} s CPU")
    if options.suite:
        measure_suite(options)


if __name__ == "__main__":
    main()
