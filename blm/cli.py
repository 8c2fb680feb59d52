"""The command line: one thin command per verb, from `blm.commands`. Heavy libraries load inside commands only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from blm import __version__
from blm.commands.collect import collect_app
from blm.commands.curate import curate_app
from blm.commands.datasets import doctor, push, view
from blm.commands.evaluate import evaluate_app, print_success
from blm.commands.terminal import checked, progress_bar
from blm.commands.train import train_app


class ErrorReportingGroup(TyperGroup):
    """Turns expected errors into two calm lines and an exit code: 1 = failed, 2 = bad usage."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from blm.schemas.errors import BlmError

            if not isinstance(error, BlmError):
                raise
            from blm.schemas.printable import printable

            typer.secho(f"error: {printable(error.message)}", fg="red", err=True)
            if error.remedy:
                typer.echo(f"       {printable(error.remedy)}", err=True)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Collect, curate, train and evaluate embodied models.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(collect_app, name="collect")
app.add_typer(curate_app, name="curate")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
for command in (doctor, view, push):
    app.command()(command)


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


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    episodes: Annotated[int, typer.Option(min=20, help="Demonstrations to record.")] = 250,
    rollouts: Annotated[int, typer.Option(min=1, help="Fresh scenes to drive in.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of scenes and training.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes for simulation.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo there.")] = False,
) -> None:
    """Tell the whole story, small, on a CPU: collect, curate, train both stages, evaluate, report.

    Example: blm demo --output demo
    """
    from blm.demo import DemoConfig, run_demo

    config = checked(
        DemoConfig,
        output=output,
        episodes=episodes,
        rollouts=rollouts,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
    )
    with progress_bar() as progress:
        summary = run_demo(config, progress)
    for chapter in summary.chapters:
        typer.echo(f"{chapter.name:<13} {chapter.seconds:5.0f} s  {chapter.result}")
    typer.echo("")
    print_success(summary.physical)
    typer.echo(f"\n{summary.seconds / 60:.1f} minutes; report: {summary.report}")
