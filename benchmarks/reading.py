"""Samples per second of our reader beside LeRobot's two, from the same episodes to the same tensors.

A sample is two cameras at 224 × 224 (uint8), the state and a chunk of 16 actions; batches of 16, two worker processes
each. Episodes are made here (moving textures, two cameras) with LeRobot's own writer and its default AV1 settings, or
H.264; our reader reads what `blm curate build-splits --image-size 224` makes of them. Readers take turns, each in a
process of its own, and the table shows medians. CPU milliseconds count all processes of a reader; memory is their
proportional set size, so that shared pages count once. The last column is the time that decoding the JPEG images
alone takes, as a share of our reader's whole CPU time.

Run: make bench ARGS=benchmarks/reading.py
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

CAMERAS = ("top", "wrist")
SOURCES = {"640×480": (640, 480), "256×256": (256, 256)}
SIDE, HORIZON, BATCH, WORKERS = 224, 16, 16, 2
LOOK_EVERY_S = 0.5
EPISODES, FRAMES, RATE = 8, 100, 20
STREAMING_BUFFER = 200
READERS = {
    "ours": "blm ShardReader",
    "shuffled": "LeRobotDataset, shuffled",
    "streaming": "StreamingLeRobotDataset",
}
TARGETS = {"640×480": {"shuffled": 15, "streaming": 8}, "256×256": {"shuffled": 6, "streaming": 3}}


def make_source(root: Path, size: tuple[int, int], codec: str) -> None:
    """Write a LeRobot v3 dataset with LeRobot's writer."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets import LeRobotDataset

    from blm.schemas.embodiment import load_embodiment

    robot = load_embodiment("so100")
    width, height = size
    vector = {"dtype": "float32", "shape": (len(robot.axes),), "names": list(robot.axis_names)}
    image = {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/reading",
        RATE,
        {
            "observation.state": vector,
            "action": vector,
            **{f"observation.images.{camera}": image for camera in CAMERAS},
        },
        root=root,
        robot_type="so100_follower",
        rgb_encoder=RGBEncoderConfig(vcodec={"av1": "libsvtav1", "h264": "h264"}[codec]),
        streaming_encoding=True,
        encoder_queue_maxsize=2 * FRAMES,  # a full queue would drop pictures
    )
    for episode in range(EPISODES):
        generator = np.random.default_rng(episode)
        videos = [moving_textures(generator, width, height) for _ in CAMERAS]
        path = smooth_path(generator, robot.column("home"), robot.column("lower"), robot.column("upper"))
        for index in range(FRAMES):
            pictures = {
                f"observation.images.{camera}": next(video)
                for camera, video in zip(CAMERAS, videos, strict=True)
            }
            vectors = {"observation.state": path[index], "action": path[index + 1]}
            dataset.add_frame({**vectors, **pictures, "task": "push the cube to the target"})
        dataset.save_episode()
    dataset.finalize()


def smooth_path(
    generator: np.random.Generator, home: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """(FRAMES + 1, A) float32: every axis swings slowly about its home."""
    time_s = np.arange(FRAMES + 1)[:, None] / RATE
    phase, frequency = generator.uniform(0, 2 * np.pi, len(home)), generator.uniform(0.1, 0.3, len(home))
    path = home + (upper - lower) * 0.08 * np.sin(2 * np.pi * frequency * time_s + phase)
    return np.clip(path, lower, upper).astype(np.float32)


def moving_textures(generator: np.random.Generator, width: int, height: int) -> Iterator[np.ndarray]:
    """Pictures (height, width, 3) uint8: a grained background that pans, a striped block, and sensor noise."""
    from PIL import Image

    def noise(cells: int) -> np.ndarray:
        coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        large = Image.fromarray(coarse).resize((width * 3 // 2, height * 3 // 2), Image.Resampling.BICUBIC)
        return np.asarray(large, dtype=np.int16)

    background = (noise(6) * 5 + noise(40) * 2 + noise(160)) // 8
    grain = generator.normal(0, 3, (height * 2, width * 2, 1)).astype(np.int16)
    block = np.full((height // 5, width // 5, 3), (20, 60, 200), np.int16)
    block[:: max(2, height // 60)] += 40
    for index in itertools.count():
        along = index / FRAMES
        x, y = int(along * width / 2), int((0.5 + 0.5 * np.sin(3 * along)) * height / 2)
        picture = background[y : y + height, x : x + width].copy()
        top, left = int(height * 0.6 * along), int(width * 0.7 * (1 - along))
        picture[top : top + block.shape[0], left : left + block.shape[1]] = block
        row, column = generator.integers(0, height), generator.integers(0, width)
        picture += grain[row : row + height, column : column + width]
        yield np.clip(picture, 0, 255).astype(np.uint8)


def build_splits(source: Path, output: Path) -> None:
    """What a user would run, with nothing held out, nothing trimmed and nothing dropped."""
    config = output.with_suffix(".yaml")
    config.write_text(
        json.dumps(
            {
                "datasets": [{"path": str(source), "embodiment": "so100", "task": "push-cube"}],
                "output": str(output),
                "image_size": SIDE,
                "trim_idle": False,
                "fractions": {"train": 1.0, "val": 0.0, "test": 0.0},
            }
        )
    )
    command = [Path(sys.executable).parent / "blm", "curate", "build-splits", "--config", config]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ours(folder: Path) -> Iterator[int]:
    """Batch sizes as the reader hands out batches."""
    from blm.train.shard_reader import ShardReader

    reader = ShardReader(
        folder / "splits", horizon=HORIZON, batch_size=BATCH, cameras=CAMERAS, image_size=SIDE
    )
    with reader.loader(WORKERS) as loader:
        for batch in loader:
            check(batch["images"].shape, batch["action"].shape)
            yield BATCH


def shuffled(folder: Path) -> Iterator[int]:
    import torch
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset(
        "local/reading",
        folder / "source",
        image_transforms=resize(),
        delta_timestamps={"action": [step / RATE for step in range(HORIZON)]},
        video_backend=video_backend(),
        return_uint8=True,
    )
    order = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=1_000_000)
    return batches(torch.utils.data.DataLoader(dataset, BATCH, sampler=order, num_workers=WORKERS))


def streaming(folder: Path) -> Iterator[int]:
    """Ends before a worker's buffer runs dry: then it only hands out what it decoded earlier."""
    import torch
    from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

    chunk: Any = {"action": [step / RATE for step in range(HORIZON)]}
    dataset = StreamingLeRobotDataset(
        "local/reading",
        folder / "source",
        image_transforms=resize(),
        delta_timestamps=chunk,
        buffer_size=STREAMING_BUFFER,
        return_uint8=True,
    )
    steady = WORKERS * (EPISODES * FRAMES - STREAMING_BUFFER) // BATCH - 2 * WORKERS
    loader = torch.utils.data.DataLoader(dataset, BATCH, num_workers=WORKERS)
    return itertools.islice(batches(loader), steady)


def batches(loader: Any) -> Iterator[int]:
    for batch in loader:
        for camera in CAMERAS:
            check((BATCH, 1, *batch[f"observation.images.{camera}"].shape[2:], 3), batch["action"].shape)
        yield BATCH


def check(images: Any, action: Any) -> None:
    assert tuple(images)[2:4] == (SIDE, SIDE), tuple(images)
    assert tuple(action) == (BATCH, HORIZON, 6), tuple(action)


def resize() -> Callable[[Any], Any]:
    """To the size that our shards are stored at; on uint8, which is the fastest way torchvision has."""
    from torchvision.transforms import v2

    return v2.Resize((SIDE, SIDE), antialias=True)


def video_backend() -> str:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return "pyav"
    return "torchcodec"


def measure(reader: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Samples per second, CPU milliseconds per sample and memory of one reader, here."""
    import psutil

    stream = {"ours": ours, "shuffled": shuffled, "streaming": streaming}[reader](folder)
    for _ in range(2 * WORKERS + 2):
        next(stream)
    used: dict[psutil.Process, float] = {}

    def family() -> list[psutil.Process]:
        return [psutil.Process(), *psutil.Process().children(recursive=True)]

    def cpu_s() -> float:
        """A helper process that has ended, as those of `datasets` do after every pass, keeps what it had used."""
        for process in family():
            with suppress(psutil.NoSuchProcess):
                used[process] = sum(process.cpu_times()[:2])
        return sum(used.values())

    def memory_mb() -> float:
        total = 0
        for process in family():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 2**20

    samples, cpu, began = 0, cpu_s(), time.perf_counter()
    looked, memory = began, memory_mb()
    for size in stream:
        samples += size
        if (now := time.perf_counter()) - looked > LOOK_EVERY_S:
            cpu_s()
            looked, memory = now, max(memory, memory_mb())
        if now - began > seconds:
            break
    wall, cpu = time.perf_counter() - began, cpu_s() - cpu
    found: dict[str, Any] = {"per_s": samples / wall, "cpu_ms": 1000 * cpu / samples, "memory_mb": memory}
    found["backend"] = "JPEG" if reader == "ours" else video_backend()
    return found | ({"decode_ms": decode_ms(folder)} if reader == "ours" else {})


def decode_ms(folder: Path) -> float:
    """CPU milliseconds to decode the images of one sample, and nothing else."""
    import simplejpeg

    from blm.schemas.shard import images_suffix, offsets_suffix
    from blm.train.shard_reader import ShardBuild

    with ShardBuild(folder / "splits") as build:
        segments = build.segments("train")
        pictures = []
        for segment in segments[:4]:
            for camera in CAMERAS:
                member = segment.members[images_suffix(camera)]
                content = (folder / "splits" / member.shard).read_bytes()
                content = content[member.offset : member.offset + member.size]
                offsets = build.arrays([segment], offsets_suffix(camera))[0]
                pictures += [content[a:b] for a, b in itertools.pairwise(offsets)]
    place = np.empty((SIDE, SIDE, 3), np.uint8)
    passes = []
    for _ in range(3):
        began = time.process_time()
        for picture in pictures:
            simplejpeg.decode_jpeg(picture, colorspace="RGB", buffer=place)
        passes.append(time.process_time() - began)
    return 1000 * statistics.median(passes) / len(pictures) * len(CAMERAS)


def environment(scratch: Path) -> dict[str, str]:
    """For torchcodec: where no FFmpeg libraries are installed, those inside PyAV, under the names it looks for."""
    from ctypes.util import find_library

    variables = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    found = importlib.util.find_spec("av")
    if find_library("avcodec") or found is None or found.origin is None:
        return variables
    folder = scratch / "ffmpeg"
    folder.mkdir()
    for library in (Path(found.origin).parents[1] / "av.libs").glob("*.so*"):
        (folder / library.name).symlink_to(library)
        name, _, version = library.name.partition(".so.")
        plain = folder / f"{name.rpartition('-')[0]}.so.{version.split('.')[0]}"
        if version and not plain.exists():
            plain.symlink_to(library)
    return variables | {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


def in_own_process(arguments: list[str], variables: dict[str, str]) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, *arguments]
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{finished.stderr[-2000:]}")
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


def table(rounds: dict[str, dict[str, list[dict[str, Any]]]], codec: str) -> str:
    """Medians over rounds as Markdown."""
    lines = [
        f"| {codec.upper()} source | reader | samples/s | CPU ms per sample | memory, MB | ours is faster by | by CPU "
        "| target | JPEG decoding alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for source, by_reader in rounds.items():
        for reader, found in by_reader.items():
            middle = {
                key: statistics.median(each[key] for each in found)
                for key in found[0]
                if key not in ("backend",)
            }
            if reader == "ours":
                compared = ["", "", "", f"{middle['decode_ms'] / middle['cpu_ms']:.0%}"]
            else:
                pairs = list(zip(by_reader["ours"], found, strict=True))
                faster = statistics.median(a["per_s"] / b["per_s"] for a, b in pairs)
                cheaper = statistics.median(b["cpu_ms"] / a["cpu_ms"] for a, b in pairs)
                compared = [f"{faster:.1f}×", f"{cheaper:.1f}×", f"≥ {TARGETS[source][reader]}×", ""]
            cells = [
                source,
                f"{READERS[reader]} ({found[0]['backend']})",
                f"{middle['per_s']:.0f}",
                f"{middle['cpu_ms']:.2f}",
                f"{middle['memory_mb']:.0f}",
                *compared,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--codec", choices=("av1", "h264"), default="av1", help="of the source videos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per reader and round")
    parser.add_argument("--folder", type=Path, help="keep sources and shards here and use them again")
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, folder = arguments.step
        if name == "source":
            make_source(Path(folder) / "source", SOURCES[Path(folder).name], arguments.codec)
        else:
            print(json.dumps(measure(name, Path(folder), arguments.seconds)))
        return
    with tempfile.TemporaryDirectory(prefix="blm-reading-") as scratch:
        run(arguments, (arguments.folder or Path(scratch)) / arguments.codec, environment(Path(scratch)))


def run(arguments: argparse.Namespace, folder: Path, variables: dict[str, str]) -> None:
    """Make what is missing, measure, print."""
    for source in SOURCES:
        place = folder / source
        place.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        if not (place / "splits" / "manifest.json").is_file():
            in_own_process(["--codec", arguments.codec, "--step", "source", str(place)], variables)
            recorded = time.perf_counter() - began
            build_splits(place / "source", place / "splits")
            print(f"{source}: recorded in {recorded:.0f} s, built in {time.perf_counter() - began:.0f} s")
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {
        source: {reader: [] for reader in READERS} for source in SOURCES
    }
    for number in range(arguments.rounds):
        for source, reader in itertools.product(SOURCES, READERS):
            step = ["--seconds", str(arguments.seconds), "--step", reader, str(folder / source)]
            found = in_own_process(step, variables)[0]
            rounds[source][reader].append(found)
            print(f"round {number + 1}  {source}  {READERS[reader]:26} {found['per_s']:6.0f} samples/s")
    text = table(rounds, arguments.codec)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
