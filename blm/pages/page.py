"""Self-contained HTML pages: headings, tables, pictures and charts in one file that can be mailed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, Template

_MEDIA_TYPES = {
    b"\x89PNG": "image/png",
    b"GIF8": "image/gif",
    b"\xff\xd8": "image/jpeg",
    b"RIFF": "image/webp",
}
"""By the first bytes of a file."""


@dataclass(frozen=True)
class Table:
    """Column heads and rows of text; columns listed in `numeric` are set flush right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A PNG, GIF, JPEG or WebP picture (a file, or its bytes), embedded into the page, with its caption.

    A `wide` one fills the page; the caption of a `narrow` one is no wider than it is, so that several stand in a row.
    """

    source: Path | bytes
    caption: str
    wide: bool = False
    narrow: bool = False

    @property
    def data_uri(self) -> str:
        """The whole picture as a `data:` address; raises ValueError for other kinds of file."""
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        for signature, media_type in _MEDIA_TYPES.items():
            if content.startswith(signature):
                return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
        raise ValueError("the picture is neither PNG, GIF, JPEG nor WebP")


@dataclass(frozen=True)
class Chart:
    """An SVG drawing (see `charts`) with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One chapter of a page."""

    heading: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    charts: Sequence[Chart] = ()
    command: str = ""


@dataclass(frozen=True)
class Figure:
    """A headline figure: a short value and what it is."""

    value: str
    label: str


def render_page(title: str, lead: str, figures: Sequence[Figure], sections: Sequence[Section]) -> str:
    """The HTML text of a page; everything a caller passes is escaped, but for charts' SVG."""
    return _template().render(title=title, lead=lead, figures=figures, sections=sections)


@lru_cache(maxsize=1)
def _template() -> Template:
    source = (files("blm.pages") / "templates" / "page.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
