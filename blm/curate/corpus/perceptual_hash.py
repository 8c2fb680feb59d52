"""Perceptual hashes of images: what an image looks like in 2 × 64 bits, nearly the same after scaling or recompression.

pHash (Zauner 2010): the signs of the lowest 8 × 8 frequencies of the picture at 32 × 32, against their median. It
survives scaling, recompression, brightness and loss of colour. dHash: whether brightness rises to the right, on a 9 × 8
grid; it survives captions and boxes drawn over part of the picture. Together they tell apart what one alone confuses.

JPEGs are decoded in grey at the smallest scale that still has 32 pixels a side: nearly all of the cost.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import simplejpeg
from PIL import Image

SIDE = 32
_FREQUENCIES = 8
_LEAST_CONTRAST = 3.0
_BATCH = 256


@dataclass(frozen=True)
class ImageHashes:
    """Hashes of N images.

    Attributes:
        phash, dhash: (N,) uint64.
        flipped_phash, flipped_dhash: (N,) uint64, of the mirror image.
        usable: (N,) bool; False where the image does not decode or is all but uniform, so that its hash means nothing.
    """

    phash: np.ndarray
    dhash: np.ndarray
    flipped_phash: np.ndarray
    flipped_dhash: np.ndarray
    usable: np.ndarray


def image_hashes(images: Sequence[bytes]) -> ImageHashes:
    """Hash encoded images (JPEG, PNG, WebP or whatever else Pillow reads). Cost: linear, about a scaled decode each."""
    parts = [_hash_batch(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    return joined_hashes(parts)


def joined_hashes(parts: Sequence[ImageHashes]) -> ImageHashes:
    """The hashes of several batches of images as one."""
    names = ("phash", "dhash", "flipped_phash", "flipped_dhash")
    columns = {name: [getattr(part, name) for part in parts] for name in names}
    empty = np.zeros(0, dtype=np.uint64)
    return ImageHashes(
        **{name: np.concatenate(column) if column else empty for name, column in columns.items()},
        usable=np.concatenate([part.usable for part in parts]) if parts else np.zeros(0, dtype=bool),
    )


def replaced_hashes(hashes: ImageHashes, places: Sequence[int], by: ImageHashes) -> ImageHashes:
    """`hashes` with those at M `places` replaced by M others."""
    columns = {field.name: getattr(hashes, field.name).copy() for field in fields(ImageHashes)}
    for name, column in columns.items():
        column[list(places)] = getattr(by, name)
    return ImageHashes(**columns)


def _hash_batch(images: Sequence[bytes]) -> ImageHashes:
    small = np.zeros((len(images), SIDE, SIDE), dtype=np.float32)
    usable = np.zeros(len(images), dtype=bool)
    for number, content in enumerate(images):
        grey = _small_grey(content)
        if grey is not None:
            small[number], usable[number] = grey, True
    usable &= small.std(axis=(1, 2)) >= _LEAST_CONTRAST
    mirrored = small[:, :, ::-1]
    return ImageHashes(_phash(small), _dhash(small), _phash(mirrored), _dhash(mirrored), usable)


def _small_grey(content: bytes) -> np.ndarray | None:
    """The image in grey at 32 × 32; None where it does not decode."""
    try:
        if content[:2] == b"\xff\xd8":
            grey = simplejpeg.decode_jpeg(
                content, colorspace="GRAY", min_height=SIDE, min_width=SIDE, fastdct=True
            )
            image = Image.fromarray(grey[:, :, 0])
        else:
            image = Image.open(io.BytesIO(content)).convert("L")
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
    except Exception:  # decoders of damaged files raise nearly anything
        return None


def _cosines() -> np.ndarray:
    """The first rows of the discrete cosine transform, (8, 32)."""
    frequency, place = np.arange(_FREQUENCIES)[:, None], np.arange(SIDE)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE)).astype(np.float32)


_COSINES = _cosines()


def _phash(small: np.ndarray) -> np.ndarray:
    low = (_COSINES @ small @ _COSINES.T).reshape(len(small), -1)
    return _packed(low > np.median(low[:, 1:], axis=1, keepdims=True))


def _dhash(small: np.ndarray) -> np.ndarray:
    rows = small.reshape(len(small), 8, SIDE // 8, SIDE).mean(axis=2)
    edges = np.linspace(0, SIDE, 10).round().astype(int)
    cells = np.add.reduceat(rows, edges[:-1], axis=2) / np.diff(edges)
    return _packed((cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(small), -1))


def _packed(bits: np.ndarray) -> np.ndarray:
    """Bits (N, 64) as (N,) uint64."""
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0] if len(bits) else np.zeros(0, dtype=np.uint64)
