"""Check images: that they decode as a whole, in a form that readers of the shards know, within the limits."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

from PIL import Image

from blm.curate.corpus.config import Limits

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


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
        with warnings.catch_warnings():
            # Pillow warns of large images; the limits decide here.
            warnings.simplefilter("ignore")
            try:
                with Image.open(io.BytesIO(content)) as image:
                    self._check_header(image)
                    image.load()
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
