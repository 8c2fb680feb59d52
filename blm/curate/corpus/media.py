"""Check images: that they decode as a whole, in a form that readers of the shards know, within the limits.

Sizes are read from the header before anything is decoded, so that a small file cannot unfold into a large picture. A
file that is an image and an archive, document or page as well is refused: the corpus would carry it on to others.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

from PIL import Image

from blm.curate.corpus.config import Limits

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_TOLD_APART = (*EXTENSIONS, "GIF", "BMP", "TIFF", "MPO")
"""What Pillow may look for. Other decoders, some of which start programs, are never tried."""
_TEXT_STARTS = (b"<svg", b"<?xml", b"<!doc", b"<html", b"<!--", b"%!ps", b"%pdf")
_PAGE = re.compile(rb"<(?:script|html|svg|iframe|\?php)\b", re.IGNORECASE)
_ZIP_END, _ZIP_END_WITHIN = b"PK\x05\x06", 65_557
_PDF, _PDF_WITHIN = b"%PDF-", 1024
_METADATA_BYTES = 65_536


class MediaError(Exception):
    """An image that cannot be used, with the reason."""

    def __init__(self, reason: str, note: str) -> None:
        super().__init__(note)
        self.reason = reason


@dataclass(frozen=True)
class CheckedImage:
    """What an image's bytes really hold: size in pixels, and the extension of its format."""

    width: int
    height: int
    extension: str


class ImageCheck:
    """Checks images, each content once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[str, CheckedImage | tuple[str, str]] = {}

    def __call__(self, sha256: str, content: bytes) -> CheckedImage:
        """What the image with this hash and these bytes is.

        Raises:
            MediaError: with the reason.
        """
        if sha256 not in self._known:
            try:
                self._known[sha256] = self._check(content)
            except MediaError as error:
                self._known[sha256] = (error.reason, str(error))
        found = self._known[sha256]
        if isinstance(found, CheckedImage):
            return found
        raise MediaError(*found)

    def _check(self, content: bytes) -> CheckedImage:
        limits = self._limits
        if len(content) > limits.max_media_bytes:
            raise MediaError("media_too_large", f"{len(content)} bytes, more than {limits.max_media_bytes}")
        if content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_TEXT_STARTS):
            raise MediaError("bad_media", f"a document, not an image: {content[:40]!r}")
        with warnings.catch_warnings():
            # Pillow warns of large images; the limits decide here.
            warnings.simplefilter("ignore")
            try:
                with Image.open(io.BytesIO(content), formats=_TOLD_APART) as image:
                    self._check_header(image)
                    image.load()
                    if problem := also_holds(content):
                        raise MediaError("polyglot_media", problem)
                    return CheckedImage(image.width, image.height, EXTENSIONS[str(image.format)])
            except MediaError:
                raise
            except Exception as error:  # decoders of damaged files raise nearly anything
                # Pillow names the buffer by its address, which differs from run to run.
                found = re.sub(r" <_io\.BytesIO object at \w+>", "", f"{error}")
                raise MediaError("bad_media", f"does not decode: {found}"[:300]) from error

    def _check_header(self, image: Image.Image) -> None:
        size, limits = f"{image.width} × {image.height} pixels", self._limits
        if image.format not in EXTENSIONS or getattr(image, "n_frames", 1) > 1:
            what = "animated " if image.format in EXTENSIONS else ""
            raise MediaError(
                "unsupported_media", f"a {what}{image.format} image; known: {', '.join(EXTENSIONS)}"
            )
        if min(image.size) < limits.min_side:
            raise MediaError("media_too_small", f"{size}, a side below {limits.min_side}")
        if max(image.size) > limits.max_side:
            raise MediaError("media_too_large", f"{size}, a side above {limits.max_side}")
        if image.width * image.height > limits.max_pixels:
            raise MediaError("media_too_large", f"{size}, more than {limits.max_pixels} in all")


def also_holds(content: bytes) -> str | None:
    """What else than an image a file is, or None: a ZIP archive, a PDF, or a page with a script or markup.

    Markup is looked for where images keep text: near the beginning and the end.
    """
    if _ZIP_END in content[-_ZIP_END_WITHIN:] and b"PK\x03\x04" in content:
        return "it is a ZIP archive as well"
    if _PDF in content[:_PDF_WITHIN]:
        return "it is a PDF as well"
    for part in (content[:_METADATA_BYTES], content[-_METADATA_BYTES:]):
        if found := _PAGE.search(part):
            return f"it holds '{found.group().decode()}'"
    return None
