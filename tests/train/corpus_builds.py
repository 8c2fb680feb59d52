"""Small Stage I builds written straight from the shard contract, without the curation code."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from blm.schemas.corpus import CorpusRecord, Media, Message, Part
from blm.schemas.manifest import Counts, Manifest
from blm.schemas.shard import IndexRow

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}


def picture(colour: str, size: int = 64) -> bytes:
    """A PNG with a square of the colour."""
    pixels = np.full((size, size, 3), 120, np.uint8)
    pixels[size // 4 : size // 2, size // 4 : size // 2] = COLOURS[colour]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def question(name: str, colour: str, split: str = "train") -> tuple[CorpusRecord, tuple[bytes, ...]]:
    """'What colour is the cube?' and its answer, about a picture."""
    content = picture(colour)
    record = CorpusRecord(
        id=name,
        messages=(
            Message("user", (Part("image", media=0), Part("text", "What colour is the cube?"))),
            Message("assistant", (Part("text", f"The cube is {colour}."),)),
        ),
        media=(Media("image", hashlib.sha256(content).hexdigest(), 64, 64, extension="png"),),
        source="test",
        licence="CC0-1.0",
        space="physical",
        task_family="perception",
        split=split,
    )
    return record, (content,)


def make_corpus(folder: Path, samples: Sequence[tuple[CorpusRecord, tuple[bytes, ...]]]) -> Path:
    """One shard per split."""
    folder.mkdir(parents=True)
    splits = sorted({record.split for record, _ in samples})
    index: list[IndexRow] = []
    for split in splits:
        shard = f"{split}-00000.tar"
        with tarfile.open(folder / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for record, media in samples:
                if record.split != split:
                    continue
                members = {"json": json.dumps(record.to_row()).encode()}
                members |= {f"{i}.{one.extension}": media[i] for i, one in enumerate(record.media)}
                for suffix, content in members.items():
                    info = tarfile.TarInfo(f"{record.id}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        with tarfile.open(folder / shard) as tar:
            for member in tar:
                key, suffix = member.name.split(".", 1)
                index.append(
                    IndexRow(shard=shard, key=key, suffix=suffix, offset=member.offset_data, size=member.size)
                )
    parquet.write_table(pa.Table.from_pylist([row.model_dump() for row in index]), folder / "index.parquet")
    Manifest(
        kind="stage1-corpus",
        software="test",
        config={},
        inputs=(),
        counts=Counts(inputs=len(samples), kept=len(samples)),
        splits={split: sum(record.split == split for record, _ in samples) for split in splits},
        breakdown={},
        fingerprint="corpus",
    ).write(folder)
    return folder
