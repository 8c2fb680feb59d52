"""What building splits costs: camera frames per CPU second, where the time goes, and memory against the input's size.

Episodes are moving textures, two cameras of 640 × 480 in H.264 (`reading.make_source`), stored at 224 × 224. Steps are
timed alone, on one thread: decoding the video; the same and resizing; the same and encoding; writing what that gave.
Builds run in processes of their own, of one dataset and of several like it (same videos, other motion), so that a
peak of memory that grew with the number of episodes would show.

Run: make bench ARGS=benchmarks/shard_build.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.process_memory import peak_mb  # noqa: E402

SIDE = 224
DATASETS = (1, 4, 12)
WORKERS = (1, 2)


def main() -> None:
    """Two tables: steps, and whole builds."""
    from benchmarks.reading import make_source

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        make_source(source, (640, 480), "h264")
        print_steps(source)
        copies = [with_other_motion(source, Path(scratch) / f"copy{n:02d}", n) for n in range(max(DATASETS))]
        print(
            f"\n{'datasets':>8} {'workers':>7} {'camera frames':>13} {'CPU s':>7} {'per CPU s':>9} {'peak MB':>8}"
        )
        for count in DATASETS:
            for workers in WORKERS:
                one = built_apart(copies[:count], Path(scratch) / f"out-{count}-{workers}", workers)
                print(
                    f"{count:8} {workers:7} {one['camera_frames']:13} {one['cpu_s']:7.1f} "
                    f"{one['camera_frames'] / one['cpu_s']:9.0f} {one['peak_mb']:8.0f}"
                )


def with_other_motion(source: Path, target: Path, seed: int) -> Path:
    """A copy that shares the video files and whose arms move differently."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.reading import smooth_path
    from blm.schemas.embodiment import load_embodiment

    robot = load_embodiment("so100")
    shutil.copytree(source, target, copy_function=os.link)
    for path in sorted(target.glob("data/*/*.parquet")):
        table = pq.read_table(path)
        generator = np.random.default_rng([seed, 1])
        episodes = table["episode_index"].to_numpy()
        for name in ("observation.state", "action"):
            parts = []
            for episode in np.unique(episodes):
                path_of = smooth_path(
                    generator, robot.column("home"), robot.column("lower"), robot.column("upper")
                )
                parts.append(path_of[: int((episodes == episode).sum())])
            flat = pa.array(np.concatenate(parts).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, len(robot.axes))
            table = table.set_column(table.column_names.index(name), name, column)
        path.unlink()
        pq.write_table(table, path)
    return target


def print_steps(source: Path) -> None:
    """CPU milliseconds a camera frame takes in each step, and its share."""
    from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

    from blm.curate.episodes import video
    from blm.curate.shards import OpenShard, Sample

    clips = [video.Clip(path, 0.0, 20.0, 0, 800) for path in sorted(source.glob("videos/*/*/*.mp4"))]
    reformatter = VideoReformatter()

    def resized(frame) -> None:
        reformatter.reformat(
            frame,
            width=SIDE,
            height=SIDE,
            format="yuvj420p",
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA,
        )

    frames, decode = timed(lambda: sum(1 for clip in clips for _ in available(clip)))
    _, resize = timed(lambda: [resized(frame) for clip in clips for frame in available(clip)])
    images, encode = timed(
        lambda: [
            video._jpeg(frame, reformatter, (SIDE, SIDE), 92) for clip in clips for frame in available(clip)
        ]
    )

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            shard = OpenShard(Path(folder), "train-00000.tar", "train", "")
            for first in range(0, len(images), 200):
                shard.add(Sample(f"s{first}", {"top.mjpeg": b"".join(images[first : first + 200])}))
            shard.finish()

    _, written = timed(write)
    steps = {
        "decode": decode,
        "resize": resize - decode,
        "encode JPEG": encode - resize,
        "write, hash": written,
    }
    total = sum(steps.values())
    print(f"{'step':12} {'CPU ms per camera frame':>24} {'share':>7}")
    for name, seconds in steps.items():
        print(f"{name:12} {1000 * seconds / frames:24.3f} {100 * seconds / total:6.0f} %")
    print(
        f"{'together':12} {1000 * total / frames:24.3f}    {sum(map(len, images)) / frames / 1000:.1f} kB a picture"
    )


def available(clip) -> Iterable:
    """All frames of a file."""
    from blm.curate.episodes import video

    return video._decoded(clip.path, 0.0)


def timed[Result](work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def built_apart(datasets: list[Path], output: Path, workers: int) -> dict[str, float]:
    """Build in a process of its own; what that took."""
    command = [sys.executable, __file__, "--build", str(workers), str(output), *map(str, datasets)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(output)
    return json.loads(finished.stdout)


def build(workers: int, output: Path, datasets: list[Path]) -> dict[str, float]:
    from blm.curate.episodes.build import build_splits
    from blm.curate.episodes.config import SplitsConfig

    config = SplitsConfig.model_validate(settings(datasets, output) | {"workers": workers})
    before = sum(os.times()[:2])
    summary = build_splits(config)
    return {
        "camera_frames": 2 * sum(summary.frames.values()),
        "cpu_s": sum(os.times()[:2]) - before,
        "peak_mb": peak_mb(),
    }


def settings(datasets: list[Path], output: Path) -> dict[str, object]:
    """A build's settings, for small episodes in many shards."""
    return {
        "datasets": [{"path": str(path), "embodiment": "so100", "task": "push-cube"} for path in datasets],
        "output": str(output),
        "image_size": SIDE,
        "shard_bytes": 8 * 1024 * 1024,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        print(json.dumps(build(int(sys.argv[2]), Path(sys.argv[3]), [Path(one) for one in sys.argv[4:]])))
    else:
        main()
