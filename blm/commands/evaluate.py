"""`blm evaluate`: measure a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from blm.commands.options import JsonOption, ModelsOption
from blm.commands.terminal import checked, given_only, progress_bar

evaluate_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure a trained model.")


@evaluate_app.command("physical")
def physical(
    run: Annotated[Path, typer.Argument(help="Folder of a stage 2 run.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("evaluation"),
    robots: Annotated[
        str, typer.Option(metavar="NAME,…", help="Only these robots.", show_default="all it was trained on")
    ] = "",
    tasks: Annotated[
        str, typer.Option(metavar="NAME,…", help="Only these tasks.", show_default="all it was trained on")
    ] = "",
    rollouts: Annotated[int, typer.Option(help="Rollouts per pair and agent.")] = 50,
    seed: Annotated[
        int | None, typer.Option(help="First scene seed.", show_default="beyond every training seed")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Also run the two baselines.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes; no effect on the result.")] = 1,
    models: ModelsOption = "own",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a policy drive in closed loop on fresh scenes, beside two baselines.

    Example: blm evaluate physical runs/stage2 --rollouts 20 --output evaluation
    """
    from blm.evaluate.physical import evaluate_physical
    from blm.evaluate.results import PhysicalConfig

    config = checked(
        PhysicalConfig,
        run=run,
        output=output,
        robots=tuple(filter(None, robots.split(","))),
        tasks=tuple(filter(None, tasks.split(","))),
        rollouts=rollouts,
        baselines=baselines,
        workers=workers,
        models=models,
        overwrite=overwrite,
        **given_only({"seed": seed}),
    )
    with progress_bar(as_json) as progress:
        summary = evaluate_physical(config, progress)
    if as_json:
        typer.echo((summary.output / "results.json").read_text(), nl=False)
        return
    print_success(summary)
    typer.echo(f"report: {summary.output / 'report.html'}")


def print_success(summary: Any) -> None:
    """The table of a closed-loop evaluation."""
    from rich.console import Console
    from rich.table import Table

    from blm.evaluate.report import COLUMNS, result_rows

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[3:] else "left")
    for row in result_rows(summary.results):
        table.add_row(*row)
    Console().print(table)
