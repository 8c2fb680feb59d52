import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from blm.curate.corpus.hamming import close_pairs
from blm.curate.corpus.near_images import matching_images, near_duplicate_images
from blm.curate.corpus.perceptual_hash import image_hashes


def photograph(seed):
    """A smooth random scene with some noise, 320 × 240."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    fine = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray(np.clip(fine + random.normal(0, 6, fine.shape), 0, 255).astype(np.uint8))


def encoded(image, form="JPEG", quality=90):
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": quality} if form == "JPEG" else {}))
    return buffer.getvalue()


def captioned(image):
    image = image.copy()
    ImageDraw.Draw(image).rectangle((0, 215, 320, 240), fill="white")
    return image


VARIANTS = {
    "poor quality": lambda image: encoded(image, quality=30),
    "half the size": lambda image: encoded(image.resize((160, 120))),
    "brighter": lambda image: encoded(image.point(lambda value: min(255, int(value * 1.15)))),
    "grey": lambda image: encoded(image.convert("L")),
    "png": lambda image: encoded(image, "PNG"),
    "caption": lambda image: encoded(captioned(image)),
}


@pytest.fixture(scope="module")
def photographs():
    return [photograph(seed) for seed in range(40)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_changed_copies_are_found_and_unrelated_images_are_not(photographs, variant):
    originals = [encoded(image) for image in photographs]
    copies = [VARIANTS[variant](image) for image in photographs]
    found = near_duplicate_images(image_hashes(originals + copies))
    clusters = dict(zip(found["row"].to_pylist(), found["cluster"].to_pylist(), strict=True))
    together = [clusters.get(row, -1) == clusters.get(row + 40, -2) for row in range(40)]
    assert np.mean(together) >= 0.95
    assert len(set(clusters.values())) == len(clusters) / 2


def test_mirror_images_count_only_where_asked(photographs):
    images = [encoded(photographs[0]), encoded(photographs[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    hashes = image_hashes(images)
    assert len(near_duplicate_images(hashes)) == 0
    assert near_duplicate_images(hashes, mirrored=True)["kept"].to_pylist() == [True, False]


def test_blank_and_broken_images_are_nobodys_duplicates(photographs):
    blank = encoded(Image.new("RGB", (64, 64), "grey"))
    hashes = image_hashes([blank, blank, b"\xff\xd8 no", b"", b"no image", encoded(photographs[0])])
    assert hashes.usable.tolist() == [False] * 5 + [True]
    assert len(near_duplicate_images(hashes)) == 0
    assert len(near_duplicate_images(image_hashes([]))) == 0


def test_images_of_a_benchmark_are_recognised(photographs):
    benchmark = image_hashes([encoded(photographs[seed], quality=40) for seed in (3, 7)])
    mine = image_hashes([encoded(image.resize((200, 150))) for image in photographs])
    assert matching_images(mine, benchmark).tolist() == [[3, 0], [7, 1]]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.integers(0, 6), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_no_close_pair_is_missed_and_none_invented(values, distance, seed):
    random = np.random.default_rng(seed)
    hashes = np.array(values, dtype=np.uint64)
    flips = [random.choice(64, random.integers(0, 9), replace=False) for _ in values]
    changed = hashes ^ np.array([sum(1 << int(bit) for bit in bits) for bits in flips], dtype=np.uint64)
    expected = [
        [i, j]
        for i in range(len(hashes))
        for j in range(len(hashes))
        if int(changed[i] ^ hashes[j]).bit_count() <= distance
    ]
    assert close_pairs(changed, hashes, distance).tolist() == expected
