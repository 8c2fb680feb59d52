"""CPU seconds per million frames, and memory, of indexing a LeRobot v3 dataset (Parquet only, 14 axes).

Both layouts: many episodes per file, as LeRobot writes, and one file per episode, as blm records. 'reading' is what it
takes to have all states and actions in memory once, batch by batch; 'index' adds metadata, hashes, and every fact that
checks look at. Run: make bench ARGS="benchmarks/episode_index.py [FRAMES] [MEMORY_GB]"
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.large_dataset import write_dataset  # noqa: E402

AXES = 14
LAYOUTS = {"many episodes per file": False, "one file per episode": True}


def main(frames: int = 1_200_000, memory_gb: float = 2.0) -> None:
    """Print a table; every figure comes from a process of its own, less what importing takes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (layout, file_per_episode) in enumerate(LAYOUTS.items()):
            root = write_dataset(
                Path(folder) / f"bench{number}", frames, AXES, file_per_episode=file_per_episode
            )
            imports = _measured("imports", root, memory_gb)
            for what in ("reading", "index"):
                found = _measured(what, root, memory_gb)
                cpu_s = found["cpu_s"] - imports["cpu_s"]
                rows.append(
                    {
                        "layout": layout,
                        "what": what,
                        "cpu_s_per_million": round(cpu_s / frames * 1e6, 2),
                        "frames_per_s_on_2_cores": round(2 * frames / cpu_s, -4),
                        "wall_s": round(found["wall_s"], 1),
                        "peak_mb_above_imports": round(found["peak_mb"] - imports["peak_mb"]),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)


def _measured(what: str, root: Path, memory_gb: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, str(root), str(memory_gb)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def _measure(what: str, root: Path, memory_gb: float) -> dict[str, float]:
    from blm.curate.episodes.config import DatasetSource
    from blm.curate.episodes.frame_batches import Resources, read_batches
    from blm.curate.episodes.frames import Columns
    from blm.curate.episodes.index import index_dataset

    resources = Resources(memory_bytes=int(memory_gb * 1e9))
    started = time.perf_counter()
    if what == "reading":
        every = tuple(range(AXES))
        files = sorted(map(str, root.glob("data/*/*.parquet")))
        columns = Columns(state=every, action=every, subtask=False, success=False)
        read_batches(files, columns, resources, lambda batches: sum(len(one.frame) for one in batches))
    elif what == "index":
        index_dataset(
            DatasetSource(path=root, embodiment=str(_described(root))), "bench", 0.02, resources=resources
        )
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.perf_counter() - started,
        "peak_mb": used.ru_maxrss / 1e3,
    }


def _described(root: Path) -> Path:
    """A YAML file for the robot, so that the figure does not hold the pass that finds its ranges."""
    import yaml

    from tests.large_dataset import joint_names

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


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(_measure(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))))
    else:
        arguments = sys.argv[1:]
        main(*(kind(text) for kind, text in zip((int, float), arguments, strict=False)))
