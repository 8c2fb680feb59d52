"""Cameras as a user names them, as LeRobot opens them, and as an embodiment describes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blm.schemas.embodiment import Camera, Embodiment
from blm.schemas.errors import UsageError

UNPLACED = "unknown"
"""The `mount` of a camera of which nobody said where it is."""

_FORM = "NAME=INDEX, NAME=/dev/video2@640x480@30 or NAME=TYPE:key=value,key=value"
_SIZE = re.compile(r"(?P<width>\d+)x(?P<height>\d+)")


@dataclass(frozen=True)
class CameraRequest:
    """One camera to open: the name it gets in the dataset, LeRobot's camera type and that type's options."""

    name: str
    kind: str = "opencv"
    width: int = 640
    height: int = 480
    rate_hz: int = 30
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> CameraRequest:
        """Read `top=0`, `top=/dev/video2@1280x720@30` or `top=intelrealsense:serial_number_or_name=0123@640x480`.

        Raises:
            UsageError: it is none of these.
        """
        name, equals, rest = text.partition("=")
        source, *details = rest.split("@")
        if not (equals and source and re.fullmatch(r"[a-z0-9_]+", name)):
            raise UsageError(f"camera '{text}' is not of the form {_FORM}.", "The name is of a-z, 0-9 and _.")
        size: dict[str, Any] = {}
        for detail in details:
            if match := _SIZE.fullmatch(detail):
                size |= {key: int(value) for key, value in match.groupdict().items()}
            elif detail.isdigit() and int(detail) > 0:
                size["rate_hz"] = int(detail)
            else:
                raise UsageError(
                    f"camera '{text}': '{detail}' is neither a size nor a rate.", f"Write {_FORM}."
                )
        kind, colon, options = source.partition(":")
        if colon and "=" in options:
            pairs = [pair.partition("=") for pair in options.split(",")]
            return cls(name, kind, options={key: value for key, _, value in pairs}, **size)
        return cls(name, options={"index_or_path": source}, **size)

    def config(self) -> dict[str, Any]:
        """The options of LeRobot's camera configuration."""
        size = {"width": self.width, "height": self.height, "fps": self.rate_hz}
        return {"type": self.kind, **size, **self.options}


def with_cameras(embodiment: Embodiment, sizes: Mapping[str, tuple[int, ...]]) -> Embodiment:
    """The embodiment with the cameras that are attached: name → (height, width, …), pixels.

    A camera that the embodiment knows by name keeps what is known of its lens and place.
    """
    known = {camera.name: camera for camera in embodiment.cameras}
    cameras = tuple(
        known.get(name, Camera(name=name, mount=UNPLACED)).model_copy(
            update={"width": size[1], "height": size[0]}
        )
        for name, size in sizes.items()
    )
    return embodiment.model_copy(update={"cameras": cameras})


def requests(texts: Iterable[str]) -> dict[str, CameraRequest]:
    """Requests by name.

    Raises:
        UsageError: a text is wrong, or two cameras have one name.
    """
    found: dict[str, CameraRequest] = {}
    for text in texts:
        request = CameraRequest.parse(text)
        if request.name in found:
            raise UsageError(f"two cameras are named '{request.name}'.", "Give each its own name.")
        found[request.name] = request
    return found
