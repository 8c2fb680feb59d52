"""CPU seconds per million frames, and memory, of indexing a LeRobot v3 dataset (Parquet only, 14 axes).

Three layouts: many episodes per file, each in a group of rows of its own, as LeRobot records and joins; many per file
in large groups, as LeRobot converts older datasets; and one file per episode, as blm records. 'reading' is what it
takes to have times, states and actions in memory once, batch by batch; 'index without facts' adds metadata, tasks,
features, hashes and counts per episode; 'index' also every fact about motion that checks look at.
Run: make bench ARGS="benchmarks/episode_index.py [FRAMES] [MEMORY_GB]"
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from blm.curate.episodes.config import DatasetSource  # noqa: E402
from blm.curate.episodes.facts import FACT_FIELDS  # noqa: E402
from blm.curate.episodes.frame_batches import read_batches  # noqa: E402
from blm.curate.episodes.frames import TIMESTAMP, Columns, Frames  # noqa: E402
from blm.curate.episodes.index import index_dataset  # noqa: E402
from blm.curate.episodes.resources import Resources  # noqa: E402
from tests.large_dataset import joint_names, rows_of_files, write_dataset  # noqa: E402
from tests.process_memory import peak_mb  # noqa: E402

AXES = 14
LAYOUTS = {
    "many episodes per file, a group each": {"file_per_episode": False, "group_per_episode": True},
    "many episodes per file, large groups": {"file_per_episode": False},
    "one file per episode": {"file_per_episode": True},
}


def main(frames: int = 1_200_000, memory_gb: float = 2.0) -> None:
    """Print a row per figure; each comes from a process of its own, and is the median of three runs after a first."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (layout, arguments) in enumerate(LAYOUTS.items()):
            sizes = {"small": 3000, "large": frames}
            small, large = (
                write_dataset(Path(folder) / f"{size}{number}", count, AXES, **arguments)
                for size, count in sizes.items()
            )
            for what in RUNS:
                command = [
                    sys.executable,
                    __file__,
                    "--measure",
                    what,
                    str(small),
                    str(large),
                    str(memory_gb),
                ]
                result = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(result.stdout)
                row = {
                    "layout": layout,
                    "what": what,
                    "cpu_s_per_million": round(found["cpu_s"] / frames * 1e6, 2),
                    "frames_per_2_cpu_s": round(2 * frames / found["cpu_s"], -4),
                    "frames_per_s": round(frames / found["wall_s"], -4),
                    "peak_mb": round(found["peak_mb"]),
                    "peak_mb_before": round(found["peak_mb_before"]),
                }
                print(json.dumps(row), flush=True)


def _measure(what: str, small: Path, large: Path, memory_gb: float) -> dict[str, float]:
    resources = Resources(memory_bytes=int(memory_gb * 1e9))
    run = RUNS[what]
    run(small, resources)
    peak_before = peak_mb()
    run(large, resources)
    cpu_s, wall_s = zip(*(_timed(run, large, resources) for _ in range(3)), strict=True)
    return {
        "cpu_s": median(cpu_s),
        "wall_s": median(wall_s),
        "peak_mb": peak_mb(),
        "peak_mb_before": peak_before,
    }


def _timed(run: Callable[[Path, Resources], None], root: Path, resources: Resources) -> tuple[float, float]:
    cpu_before, started = time.process_time(), time.perf_counter()
    run(root, resources)
    return time.process_time() - cpu_before, time.perf_counter() - started


def _read(root: Path, resources: Resources) -> None:
    every = tuple(range(AXES))
    columns = Columns(state=every, action=every, subtask=False, success=False, time=TIMESTAMP)
    read_batches(
        rows_of_files(root), columns, resources, lambda batches: sum(len(one.frame) for one in batches)
    )


def _index_without_facts(root: Path, resources: Resources) -> None:
    with patch("blm.curate.episodes.index.episode_facts", _counts):
        _index(root, resources)


def _counts(frames: Frames, *_: object) -> pa.Table:
    """As `episode_facts`, but for the number of rows all is null."""
    episodes, rows = np.unique(frames.episode, return_counts=True)
    known = {"episode": pa.array(episodes), "rows": pa.array(rows)}
    return pa.table(
        known | {name: pa.nulls(len(rows), kind) for name, kind in FACT_FIELDS if name not in known}
    )


def _index(root: Path, resources: Resources) -> None:
    source = DatasetSource(path=root, embodiment=str(_described(root)))
    index_dataset(source, "bench", 0.02, resources=resources)


def _described(root: Path) -> Path:
    """A YAML file for the robot, so that the figure does not hold the pass that finds its ranges."""
    path = root / "bench.yaml"
    limits = {"max_velocity": 10.0, "max_acceleration": 1e3, "max_jerk": 1e5}
    axes = [
        {
            "name": name,
            "role": "gripper" if "gripper" in name else "arm",
            "unit": "native",
            "joint": name.removesuffix(".pos"),
            "scale": 1.0,
            "lower": -1.1,
            "upper": 1.1,
            "home": 0.0,
            **limits,
        }
        for name in joint_names(AXES)
    ]
    described = {
        "name": "bench",
        "title": "bench",
        "model": "none",
        "base_position": [0, 0, 0],
        "gripper": {"open": 1.0, "closed": -1.0, "max_opening_m": 0.1},
        "axes": axes,
        "cameras": [{"name": "none", "mount": "none"}],
    }
    path.write_text(yaml.safe_dump(described))
    return path


RUNS = {"reading": _read, "index without facts": _index_without_facts, "index": _index}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        what, small, large, memory = sys.argv[2:]
        print(json.dumps(_measure(what, Path(small), Path(large), float(memory))))
    else:
        main(*(kind(text) for kind, text in zip((int, float), sys.argv[1:], strict=False)))  # type: ignore[arg-type]
