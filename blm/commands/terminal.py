"""What commands read from a terminal and write to it: checked settings, progress, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from blm.schemas.progress import Progress


_WIDTH_WITHOUT_NOTE = 60
"""Characters of a progress line with a short bar: what is left of the terminal's width is the note's."""


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Progress]:
    """A progress line per piece of work on standard error; silent for machines."""
    from blm.schemas.progress import silent

    if quiet:
        yield silent
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    from blm.schemas.printable import printable

    console = Console(stderr=True)
    room = max(8, console.width - _WIDTH_WITHOUT_NOTE)
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn(
            "{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=room)
        ),
    )
    bars = Progress(*columns, console=console)
    known: dict[str, Any] = {}

    def report(label: str, done: int, total: int, note: str = "") -> None:
        note = escape(printable(note, 200))
        if label not in known:
            bars.start()  # only now: bars without any would leave an empty line
            known[label] = bars.add_task(label, total=total, completed=done, note=note)
        bars.update(known[label], completed=done, total=total, note=note)

    try:
        yield report
    finally:
        if known:
            bars.stop()


def print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, indent=1, default=str))


def overrides(pairs: list[str] | None) -> dict[str, str]:
    from blm.schemas.errors import UsageError

    changes = {}
    for pair in pairs or []:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set '{pair}' is not KEY=VALUE.", "Example: --set learning_rate=0.0003")
        changes[key] = value
    return changes


def refuse_nothing(given: object, what: str, remedy: str) -> None:
    """Raise UsageError where nothing was given to work on."""
    from blm.schemas.errors import UsageError

    if not given:
        raise UsageError(f"no {what} were named.", remedy)


def checked(model: type[Any], **settings: Any) -> Any:
    from blm.schemas.yaml_model import validate

    return validate(model, settings, "command line")


def given_only(settings: dict[str, Any]) -> dict[str, Any]:
    """What was typed; the rest keeps its default."""
    return {key: value for key, value in settings.items() if value is not None}


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def plain(summary: Any) -> dict[str, Any]:
    """A frozen dataclass (with models inside) as plain JSON-ready data."""
    return {name: _plain(value) for name, value in vars(summary).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
