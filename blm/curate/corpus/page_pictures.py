"""Pictures of a corpus' page: thumbnails, a mosaic, pairs side by side, and answers drawn where they point."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from PIL import Image, ImageDraw

from blm.curate.corpus.projection import POINT_SCALE

TILE = 118
_PLACE = re.compile(r"\((\d{1,4}), ?(\d{1,4})(?:, ?(\d{1,4}), ?(\d{1,4}))?\)")
_INK, _RIM = (255, 0, 200), (255, 255, 255)
_REACH = 6


def thumbnail(content: bytes, size: tuple[int, int]) -> Image.Image | None:
    """The image no larger than `size`; None where it does not decode here."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", size)
            image = image.convert("RGB")
            image.thumbnail(size)
            return image
    except Exception:  # decoders raise nearly anything; the page does without
        return None


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def mosaic(contents: Sequence[bytes], columns: int) -> tuple[Image.Image, int] | None:
    """The middle square of each image, in rows of at most `columns`, and how many there are; None if none decodes."""
    tiles = [tile for content in contents if (tile := _square(content))]
    if not tiles:
        return None
    columns = min(columns, len(tiles))
    pitch = TILE + 2
    sheet = Image.new("RGB", (columns * pitch - 2, -(-len(tiles) // columns) * pitch - 2), "white")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * pitch, place // columns * pitch))
    return sheet, len(tiles)


def _square(content: bytes) -> Image.Image | None:
    image = thumbnail(content, (4 * TILE, 4 * TILE))
    if image is None:
        return None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((TILE, TILE))


def side_by_side(one: bytes, other: bytes, size: tuple[int, int]) -> Image.Image | None:
    """Two images beside each other; None where one does not decode."""
    left, right = thumbnail(one, size), thumbnail(other, size)
    if left is None or right is None:
        return None
    sheet = Image.new("RGB", (left.width + right.width + 8, max(left.height, right.height)), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + 8, 0))
    return sheet


def draw_place(image: Image.Image, answer: str) -> bool:
    """Draw the point or box that an answer consists of, in thousandths of width and height; False if it is none."""
    found = _PLACE.fullmatch(answer.strip())
    if not found:
        return False
    numbers = [int(number) for number in found.groups() if number is not None]
    if max(numbers) > POINT_SCALE:
        return False
    sides = (image.width, image.height) * 2
    at = [number / POINT_SCALE * side for number, side in zip(numbers, sides, strict=False)]
    pen = ImageDraw.Draw(image)
    box = at if len(at) == 4 else [at[0] - _REACH, at[1] - _REACH, at[0] + _REACH, at[1] + _REACH]
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    draw = pen.rectangle if len(at) == 4 else pen.ellipse
    draw((left - 1, top - 1, right + 1, bottom + 1), outline=_RIM, width=4)
    draw((left, top, right, bottom), outline=_INK, width=2)
    return True
