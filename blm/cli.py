"""The command line: one thin command per verb. Heavy libraries are imported inside the commands only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from typer.core import TyperGroup

from blm import __version__

if TYPE_CHECKING:
    from blm.schemas.progress import Progress

ROBOTS = "so100, panda, xarm6, xarm7, widowxai"
TASKS = "pick-cube, push-cube, pull-cube, stack-cube, place-sphere, lift-peg-upright"


class ErrorReportingGroup(TyperGroup):
    """Turns expected errors into two calm lines and an exit code: 1 = failed, 2 = bad usage."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from blm.schemas.errors import BlmError

            if not isinstance(error, BlmError):
                raise
            typer.secho(f"error: {error.message}", fg="red", err=True)
            if error.remedy:
                typer.echo(f"       {error.remedy}", err=True)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Collect, curate, train and evaluate embodied models.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
curate_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Turn recordings and sources into shards."
)
train_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train on shards.")
evaluate_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure a trained model.")
app.add_typer(curate_app, name="curate")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
]
ModelsOption = Annotated[
    str, typer.Option(help="Robot models: own (shipped), or menagerie (vendor meshes you have).")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Collect, curate, train and evaluate embodied models."""


@contextmanager
def _progress_bar(quiet: bool = False) -> Iterator[Progress]:
    """A progress line per piece of work on standard error; silent for machines."""
    from blm.schemas.progress import silent

    if quiet:
        yield silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def report(label: str, done: int, total: int, note: str = "") -> None:
            if label not in known:
                known[label] = bars.add_task(label, total=total, note=note)
            bars.update(known[label], completed=done, total=total, note=note)

        yield report


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, indent=1, default=str))


def _overrides(pairs: list[str] | None) -> dict[str, str]:
    from blm.schemas.errors import UsageError

    changes = {}
    for pair in pairs or []:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set '{pair}' is not KEY=VALUE.", "Example: --set learning_rate=0.0003")
        changes[key] = value
    return changes
