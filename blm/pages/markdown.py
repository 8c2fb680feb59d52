"""Data cards: Markdown from templates, where a value that is missing is an error and not a gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def render_markdown(template: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The text of a Jinja template, whose own `filters` turn values into words."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template.name).render(**values)
