"""A Stage II build as its shards hold it: whole episodes, their arrays, and single images by seeking.

`index.parquet` says where each member of each sample lies, so every read is one range of bytes; no tar is scanned.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import simplejpeg

from blm.schemas.errors import DatasetError, UnknownNameError
from blm.schemas.manifest import INDEX_FILE, MANIFEST_FILE, SHARD_TABLE_FILE, Manifest, parse_manifest
from blm.schemas.shard import (
    ACTION_SUFFIX,
    META_SUFFIX,
    STATE_SUFFIX,
    SegmentMeta,
    images_suffix,
    offsets_suffix,
)
from blm.train.shard_storage import ByteRange, CachedStorage, Storage, open_storage


@dataclass(frozen=True)
class Member:
    """Where one member of a sample lies: shard file name, byte offset and size of its content."""

    shard: str
    offset: int
    size: int


@dataclass(frozen=True)
class Segment:
    """One sample: its key, what is known about it, and where its members lie (suffix → Member)."""

    key: str
    meta: SegmentMeta
    members: Mapping[str, Member]


class ImageAddress(NamedTuple):
    """One stored image."""

    segment: Segment
    camera: str
    frame: int


class ShardBuild:
    """A complete Stage II build, in a folder or behind an fsspec URL. Safe to use from several threads.

    With `cache`, shards of a remote build are fetched whole into that folder when first needed; without, only the
    ranges that are looked at are read.

    Raises:
        DatasetError: there is no finished Stage II build, or a file of it is missing or damaged.
        ConfigError: the URL's protocol is not known here.
    """

    def __init__(self, folder: str | Path, *, cache: str | Path | None = None) -> None:
        self.folder = folder
        self._storage: Storage = open_storage(folder, cache)
        self.manifest: Manifest = self._read_manifest()
        self._offsets: dict[tuple[str, str], np.ndarray] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the shard files; reading opens them again."""
        self._storage.close()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted(self.manifest.splits))

    def segments(self, split: str | None = None) -> tuple[Segment, ...]:
        """All samples of a split (or of the whole build), in index order.

        Raises:
            UnknownNameError: no such split; lists those there are.
        """
        if split is None:
            return self._segments
        if split not in self.manifest.splits:
            raise UnknownNameError("split", split, self.splits)
        return tuple(segment for segment in self._segments if segment.meta.split == split)

    def shard_names(self) -> tuple[str, ...]:
        """File names of the build's shards, in order."""
        return tuple(self._shard_bytes)

    def check_shards(self, names: Iterable[str] | None = None) -> None:
        """Look whether shards (default: all) are there and as long as they were written. Remote ones are not asked.

        Raises:
            DatasetError: names the first that is missing, cut short or grown. A damaged cached copy is fetched again.
        """
        for name in self.shard_names() if names is None else names:
            size, written = self._storage.size(name), self._shard_bytes.get(name)
            if size is None or written is None or size == written:
                continue
            if isinstance(self._storage, CachedStorage):
                self._storage.discard(name)
                continue
            raise DatasetError(
                f"{self._storage.location}/{name} has {size} bytes; {written} were written.",
                "Build the splits again, or copy them again.",
            )

    def state(self, segment: Segment) -> np.ndarray:
        """Measured axis values of a whole sample, (T, A) float32, axis units."""
        return self.arrays([segment], STATE_SUFFIX)[0]

    def action(self, segment: Segment) -> np.ndarray:
        """Axis targets as sent, (T, A) float32, axis units."""
        return self.arrays([segment], ACTION_SUFFIX)[0]

    def arrays(self, segments: Sequence[Segment], suffix: str) -> list[np.ndarray]:
        """The same member of several samples, each of whatever shape it has."""
        contents = self._storage.ranges([_range(segment.members[suffix]) for segment in segments])
        return [
            _array(content, f"{segment.key}.{suffix}")
            for segment, content in zip(segments, contents, strict=True)
        ]

    def images(self, segment: Segment, camera: str, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode some frames of one camera, (len(frames), H, W, 3) uint8 RGB.

        Raises:
            UnknownNameError: the sample has no such camera; lists those it has.
        """
        width, height = segment.meta.image_size
        images = np.empty((len(frames), height, width, 3), np.uint8)
        self.decode([ImageAddress(segment, camera, int(frame)) for frame in frames], images)
        return images

    def encoded_image(self, segment: Segment, camera: str, frame: int) -> bytes:
        """One stored image as it lies there, JPEG or WebP.

        Raises:
            UnknownNameError: the sample has no such camera; lists those it has.
            DatasetError: the sample has no such frame, or its shard is missing or cut short.
        """
        if not 0 <= frame < segment.meta.frames:
            raise DatasetError(f"{segment.key} has {segment.meta.frames} frames, no frame {frame}.")
        try:
            return self._image_bytes([ImageAddress(segment, camera, frame)])[0]
        except (KeyError, IndexError) as error:
            raise DatasetError(
                f"{segment.key} does not say where frame {frame} of {camera} lies ({error}).",
                "Build the splits again.",
            ) from error

    def decode(self, wanted: Sequence[ImageAddress], images: np.ndarray | Sequence[np.ndarray]) -> None:
        """Decode each image straight into its place in `images`: N contiguous (H, W, 3) uint8 arrays, RGB.

        Where the place is smaller than the stored image, the JPEG is decoded at the smallest scale that covers it
        and resized; where it is larger, resized.

        Raises:
            UnknownNameError: a sample has no such camera; lists those it has.
            DatasetError: an image is not readable, or its shard is missing or cut short.
        """
        for address, place, content in zip(wanted, images, self._image_bytes(wanted), strict=True):
            width, height = address.segment.meta.image_size
            try:
                if address.segment.meta.image_format == "webp":
                    place[:] = _from_webp(content, place.shape[1], place.shape[0])
                elif place.shape[:2] == (height, width):
                    decoded = simplejpeg.decode_jpeg(content, colorspace="RGB", buffer=place)
                    if decoded.shape != place.shape:
                        raise ValueError(f"it has the shape {decoded.shape}, not {place.shape}")
                else:
                    place[:] = _resized(content, place.shape[1], place.shape[0])
            except (ValueError, OSError) as error:
                raise DatasetError(
                    f"{address.segment.key} camera {address.camera} frame {address.frame} is not a readable image: "
                    f"{error}",
                    "Build the splits again.",
                ) from error

    def _image_bytes(self, wanted: Sequence[ImageAddress]) -> list[bytes]:
        self._read_offsets(wanted)
        ranges = []
        for segment, camera, frame in wanted:
            member = segment.members[images_suffix(camera, segment.meta.image_format)]
            offsets = self._offsets[segment.key, camera]
            start, stop = int(offsets[frame]), int(offsets[frame + 1])
            ranges.append(ByteRange(member.shard, member.offset + start, stop - start))
        return self._storage.ranges(ranges)

    def _read_offsets(self, wanted: Sequence[ImageAddress]) -> None:
        """Read where images lie within their members, where that is not known yet, all at once."""
        missing = {(a.segment.key, a.camera): a.segment for a in wanted} if wanted else {}
        missing = {label: segment for label, segment in missing.items() if label not in self._offsets}
        if not missing:
            return
        for (_, camera), segment in missing.items():
            if camera not in segment.meta.cameras:
                raise UnknownNameError("camera", camera, segment.meta.cameras)
        contents = self._storage.ranges(
            [_range(segment.members[offsets_suffix(camera)]) for (_, camera), segment in missing.items()]
        )
        for label, content in zip(missing, contents, strict=True):
            self._offsets[label] = _array(content, ".".join(label))

    def _read_manifest(self) -> Manifest:
        try:
            content = self._storage.read(MANIFEST_FILE)
        except OSError as error:
            raise DatasetError(
                f"{self.folder} holds no {MANIFEST_FILE}.",
                "Is the build finished? Run it again to complete it.",
            ) from error
        return parse_manifest(content, str(self.folder), "stage2-splits")

    @cached_property
    def _segments(self) -> tuple[Segment, ...]:
        self.check_shards()
        members: dict[str, dict[str, Member]] = {}
        columns = self._table(INDEX_FILE, ("shard", "key", "suffix", "offset", "size"))
        for shard, key, suffix, offset, size in zip(*columns, strict=True):
            members.setdefault(key, {})[suffix] = Member(shard, offset, size)
        metas = self._storage.ranges([_range(found[META_SUFFIX]) for found in members.values()])
        return tuple(
            Segment(key, SegmentMeta.model_validate_json(meta), found)
            for (key, found), meta in zip(members.items(), metas, strict=True)
        )

    @cached_property
    def _shard_bytes(self) -> dict[str, int]:
        names, sizes = self._table(SHARD_TABLE_FILE, ("name", "bytes"))
        return dict(zip(names, sizes, strict=True))

    def _table(self, name: str, columns: Sequence[str]) -> list[list]:
        path = f"{self.folder}/{name}"
        try:
            # Not read_table: that imports pandas where it is installed, which takes a second.
            table = parquet.ParquetFile(pa.BufferReader(self._storage.read(name))).read(list(columns))
        except FileNotFoundError as error:
            raise DatasetError(f"{path} does not exist.", "Build the splits again.") from error
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path} is not readable: {error}", "Build the splits again.") from error
        return [table[column].to_pylist() for column in columns]


def _range(member: Member) -> ByteRange:
    return ByteRange(member.shard, member.offset, member.size)


def _array(content: bytes, name: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{name} is not a readable array: {error}", "Build the splits again.") from error


def _resized(content: bytes, width: int, height: int) -> np.ndarray:
    """(height, width, 3): decoded at the smallest of JPEG's own scales that covers it, then resized, antialiased."""
    from PIL import Image

    image = simplejpeg.decode_jpeg(content, colorspace="RGB", min_height=height, min_width=width)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _from_webp(content: bytes, width: int, height: int) -> np.ndarray:
    """(height, width, 3), resized where the stored image has another size."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["webp"]) as image:
        pixels = image.convert("RGB")
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels)
