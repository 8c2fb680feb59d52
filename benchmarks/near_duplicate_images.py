"""Hashing images for near-duplicates: images per CPU second, beside `imagehash` and beside decoding alone.

Images are camera-like pictures of 640 × 480 in JPEG. "Scaled decoding" is libjpeg-turbo's grey at 1/8 of the size, the
least that any hash needs. Variants (poorer quality, half the size, brighter, grey) should be joined with their original
and with nothing else. Each figure is the median of three runs. PEERS may name folders to import from.

Run: make bench ARGS=benchmarks/near_duplicate_images.py
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

SIZE = (640, 480)
PICTURES = 300
RUNS = 3


def main() -> None:
    """Two Markdown tables: speed, and what is found."""
    sys.path += [folder for folder in os.environ.get("PEERS", "").split(os.pathsep) if folder]
    pictures = [picture(seed) for seed in range(PICTURES)]
    contents = [jpeg(one, 92) for one in pictures]
    print(f"{len(contents)} JPEGs of {np.mean([len(one) for one in contents]) / 1024:.0f} KB\n")
    print("| what | images per CPU s | beside scaled decoding |\n|---|---:|---:|")
    decoding = speed(scaled_decoding, contents)
    for name, work in (
        ("scaled decoding alone", scaled_decoding),
        ("ours: pHash, dHash and both of the mirror image", ours),
        ("imagehash.phash", imagehash_phash),
        ("imagehash.phash and dhash", imagehash_both),
    ):
        try:
            found = decoding if work is scaled_decoding else speed(work, contents)
        except ImportError as error:
            print(f"| {name} | – | {error} |")
            continue
        print(f"| {name} | {found:,.0f} | {100 * found / decoding:.0f} % |")
    print_found(pictures, contents)


def picture(seed: int) -> Image.Image:
    """A smooth random scene with the noise of a camera."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)).astype(np.float32)
    noise = generator.normal(0, 6, (SIZE[1], SIZE[0], 1))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def speed(work: Callable[[list[bytes]], object], contents: list[bytes]) -> float:
    """Images per CPU second, the median of some runs."""
    work(contents[:8])
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        work(contents)
        times.append(time.process_time() - start)
    return len(contents) / float(np.median(times))


def scaled_decoding(contents: list[bytes]) -> None:
    for content in contents:
        simplejpeg.decode_jpeg(content, colorspace="GRAY", min_height=32, min_width=32, fastdct=True)


def ours(contents: list[bytes]) -> object:
    from blm.curate.corpus.perceptual_hash import image_hashes

    return image_hashes(contents)


def imagehash_phash(contents: list[bytes]) -> object:
    import imagehash  # type: ignore[import-not-found]

    return [imagehash.phash(Image.open(io.BytesIO(content))) for content in contents]


def imagehash_both(contents: list[bytes]) -> object:
    import imagehash  # type: ignore[import-not-found]

    images = (Image.open(io.BytesIO(content)) for content in contents)
    return [(imagehash.phash(image), imagehash.dhash(image)) for image in images]


def print_found(pictures: list[Image.Image], contents: list[bytes]) -> None:
    """Whether variants are joined with their original, and nothing else is."""
    from blm.curate.corpus.near_images import near_duplicate_images
    from blm.curate.corpus.perceptual_hash import image_hashes

    variants: dict[str, Callable[[Image.Image], bytes]] = {
        "quality 30": lambda image: jpeg(image, 30),
        "half the size": lambda image: jpeg(image.resize((SIZE[0] // 2, SIZE[1] // 2)), 90),
        "brighter": lambda image: jpeg(
            image.point([min(255, int(value * 1.15)) for value in range(256)] * 3), 90
        ),
        "grey": lambda image: jpeg(image.convert("L"), 90),
    }
    print("\n| variant | joined with its original | joined with anything else |\n|---|---:|---:|")
    count = len(pictures)
    for name, vary in variants.items():
        found = near_duplicate_images(image_hashes([*contents, *map(vary, pictures)]))
        cluster = dict(zip(found["row"].to_pylist(), found["cluster"].to_pylist(), strict=True))
        together = np.mean([cluster.get(row, -1) == cluster.get(row + count, -2) for row in range(count)])
        wrong = np.mean([row % count != root % count for row, root in cluster.items()] or [0])
        print(f"| {name} | {100 * together:.1f} % | {100 * wrong:.1f} % |")


if __name__ == "__main__":
    main()
