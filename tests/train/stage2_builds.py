"""Small Stage II builds written straight from the shard contract, without the curation code, and a fake backbone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import simplejpeg
import torch

from blm.schemas.embodiment import load_embodiment
from blm.schemas.manifest import AxisStatistics, Counts, EmbodimentStatistics, Manifest, read_manifest
from blm.schemas.shard import IndexRow, SegmentMeta, ShardRow, shard_row_columns
from blm.train.backbone import IntentTokens

SIZE = 32
INSTRUCTIONS = ("push the cube", "slide the blue block forward")


class FakeBackbone:
    """One token per 8 × 8 patch, its mean colour lifted to `width`, and two text tokens. Deterministic."""

    def __init__(self, width: int = 12, fingerprint: str = "fake", tap: int = 1) -> None:
        self.width, self.fingerprint, self.tap = width, fingerprint, tap
        self.calls = 0
        generator = torch.Generator().manual_seed(0)
        self.lift = torch.randn(3, width, generator=generator)

    def intent(self, images: np.ndarray, instructions: Sequence[str]) -> IntentTokens:
        self.calls += 1
        batch, cameras, height, width, _ = images.shape
        rows, columns = height // 8, width // 8
        patches = torch.from_numpy(images.astype(np.float32) / 255 - 0.5)
        patches = patches.view(batch, cameras, rows, 8, columns, 8, 3).mean((3, 5))
        visual = patches.flatten(1, 3) @ self.lift
        lengths = torch.tensor([[len(text)] for text in instructions]) / 40
        text = torch.ones(batch, 2, self.width) * lengths[:, :, None]
        grid = torch.cartesian_prod(
            (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
        )
        position = torch.cat([torch.tensor([[0.0, 0.0], [0.0, 0.5]]), grid.repeat(cameras, 1)])
        segment = torch.cat(
            [torch.zeros(2), 1 + torch.arange(cameras).repeat_interleave(rows * columns)]
        ).long()
        hidden = torch.cat([text, visual], dim=1)
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool)
        return IntentTokens(
            hidden, mask, segment.expand(batch, -1), position.expand(batch, -1, -1).contiguous()
        )


def picture(place: np.ndarray, shade: int = 90) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 with a blue square at `place` (row, column in 0..1)."""
    image = np.full((SIZE, SIZE, 3), shade, np.uint8)
    row, column = (place * (SIZE - 8)).astype(int)
    image[row : row + 8, column : column + 8] = (20, 40, 220)
    return image


def make_build(
    folder: Path,
    *,
    embodiments: Sequence[str] = ("so100",),
    episodes: int = 4,
    frames: int = 12,
    cameras: Sequence[str] = ("top",),
    splits: Sequence[str] = ("train", "val"),
    seed: int = 0,
) -> Path:
    """`episodes` per embodiment in the first split, half as many in the others; arms move towards the square."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    index: list[IndexRow] = []
    shards: list[ShardRow] = []
    arrays: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in embodiments}
    for number, split in enumerate(splits):
        for name in embodiments:
            shard = f"{split}-{name}-00000.tar"
            count = episodes if number == 0 else max(1, episodes // 2)
            with tarfile.open(folder / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
                for episode in range(count):
                    length = frames + episode % 3
                    key = f"{name}_{split}-{episode:06d}"
                    members, state, action = _sample(
                        name, split, episode, length, cameras, generator, key.split("-")[0]
                    )
                    if number == 0:
                        arrays[name].append((state, action))
                    for suffix, content in members.items():
                        info = tarfile.TarInfo(f"{key}.{suffix}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
            with tarfile.open(folder / shard) as tar:
                for member in tar:
                    key, suffix = member.name.split(".", 1)
                    index.append(
                        IndexRow(
                            shard=shard, key=key, suffix=suffix, offset=member.offset_data, size=member.size
                        )
                    )
            shards.append(
                ShardRow(
                    name=shard,
                    sha256="",
                    samples=count,
                    frames=0,
                    bytes=(folder / shard).stat().st_size,
                    split=split,
                    counts={},
                )
            )
    parquet.write_table(pa.Table.from_pylist([row.model_dump() for row in index]), folder / "index.parquet")
    rows = pa.Table.from_pylist([shard_row_columns(row) for row in shards])
    parquet.write_table(rows, folder / "manifest.parquet")
    total = sum(row.samples for row in shards)
    Manifest(
        kind="stage2-splits",
        software="test",
        config={},
        inputs=(),
        counts=Counts(inputs=total, kept=total),
        splits={split: sum(r.samples for r in shards if r.split == split) for split in splits},
        breakdown={},
        statistics={name: _statistics(name, arrays[name], tuple(cameras)) for name in embodiments},
        fingerprint=f"build-{seed}",
    ).write(folder)
    return folder


def merge(folder: Path, other: Path) -> None:
    """Add another build's shards to a build."""
    for table in ("index.parquet", "manifest.parquet"):
        both = [parquet.read_table(path / table) for path in (folder, other)]
        parquet.write_table(pa.concat_tables(both), folder / table)
    for shard in other.glob("*.tar"):
        shard.rename(folder / shard.name)
    mine, theirs = read_manifest(folder), read_manifest(other)
    both = {
        "statistics": {**mine.statistics, **theirs.statistics},
        "splits": {
            name: mine.splits.get(name, 0) + theirs.splits.get(name, 0)
            for name in mine.splits | theirs.splits
        },
    }
    mine.model_copy(update=both).write(folder)


def without_training_samples(folder: Path, embodiment: str) -> Path:
    """Take an embodiment out of a build's training split, as where all of its episodes are held out."""
    manifest = read_manifest(folder)
    kept = {name: one for name, one in manifest.statistics.items() if name != embodiment}
    index = parquet.read_table(folder / "index.parquet")
    rows = [row for row in index.to_pylist() if not row["shard"].startswith(f"train-{embodiment}-")]
    parquet.write_table(pa.Table.from_pylist(rows, schema=index.schema), folder / "index.parquet")
    manifest.model_copy(update={"statistics": kept}).write(folder)
    return folder


def _sample(
    name: str,
    split: str,
    episode: int,
    length: int,
    cameras: Sequence[str],
    generator: np.random.Generator,
    dataset: str,
) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    embodiment = load_embodiment(name)
    place = generator.uniform(size=2)
    home, span = embodiment.column("home"), embodiment.column("upper") - embodiment.column("lower")
    target = home.copy()
    target[:2] += span[:2] * 0.2 * (place * 2 - 1)
    along = np.linspace(0, 1, length + 1)[:, None]
    path = (home + along * (target - home) + generator.normal(0, 0.003, (length + 1, 1)) * span).astype("<f4")
    state, action = path[:-1], path[1:]
    meta = SegmentMeta(
        dataset=dataset,
        episode=episode,
        start=2,
        stop=2 + length,
        embodiment=name,
        task="push-cube",
        instruction=INSTRUCTIONS[episode % 2],
        success=True,
        seed=episode,
        split=split,
        rate_hz=embodiment.control_rate_hz,
        axis_names=embodiment.axis_names,
        cameras=tuple(cameras),
        image_size=(SIZE, SIZE),
        subtasks=("push",),
    )
    members = {
        "json": meta.model_dump_json().encode(),
        "state.npy": _npy(state),
        "action.npy": _npy(action),
        "subtask.npy": _npy(np.zeros(length, "<i4")),
    }
    for number, camera in enumerate(cameras):
        images = [
            simplejpeg.encode_jpeg(picture(place, 60 + 10 * number + frame), quality=95)
            for frame in range(length)
        ]
        members[f"{camera}.mjpeg"] = b"".join(images)
        members[f"{camera}.npy"] = _npy(np.cumsum([0, *map(len, images)], dtype="<i8"))
    return members, state, action


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _statistics(
    name: str, arrays: list[tuple[np.ndarray, np.ndarray]], cameras: tuple[str, ...]
) -> EmbodimentStatistics:
    embodiment = load_embodiment(name)
    state, action = (np.concatenate([pair[i] for pair in arrays]) for i in range(2))
    return EmbodimentStatistics(
        axis_names=embodiment.axis_names,
        gripper_index=embodiment.gripper_index,
        rate_hz=embodiment.control_rate_hz,
        cameras=cameras,
        state=_axis_statistics(state),
        action=_axis_statistics(action),
    )


def _axis_statistics(values: np.ndarray) -> AxisStatistics:
    def row(figures: np.ndarray) -> tuple[float, ...]:
        return tuple(float(value) for value in figures)

    return AxisStatistics(
        count=len(values),
        mean=row(values.mean(0)),
        std=row(values.std(0)),
        min=row(values.min(0)),
        max=row(values.max(0)),
        q01=row(np.quantile(values, 0.01, axis=0)),
        q99=row(np.quantile(values, 0.99, axis=0)),
    )
