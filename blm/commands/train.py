"""`blm train`: both stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from blm.commands.options import JsonOption, ResumeTraining, SetOption
from blm.commands.terminal import counted, overrides, plain, print_json, progress_bar

train_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train on shards.")


@train_app.command("stage1")
def stage1(
    corpus: Annotated[Path, typer.Option(help="Folder made by blm curate build-corpus.")],
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/stage1"),
    backbone: Annotated[str, typer.Option(help="tiny, a folder in Hugging Face form, or a hub id.")] = "tiny",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 200,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the order of conversations.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    settings: SetOption = None,
    resume: ResumeTraining = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a multimodal language model on a corpus; only what the assistant says counts.

    Example: blm train stage1 --corpus corpus --backbone tiny --output runs/stage1
    """
    from blm.train.recipes import stage1_config
    from blm.train.stage1 import train_stage1

    config = stage1_config(
        overrides(settings),
        corpus=corpus,
        output=output,
        backbone=backbone,
        steps=steps,
        seed=seed,
        device=device,
        resume=resume,
    )
    with progress_bar(as_json) as progress:
        summary = train_stage1(config, progress)
    if as_json:
        print_json(plain(summary))
        return
    _print_training(summary)
    typer.echo(
        f"next: blm train stage2 --splits splits --backbone {summary.output}/backbone --output runs/stage2"
    )


@train_app.command("stage2")
def stage2(
    splits: Annotated[Path, typer.Option(help="Folder made by blm curate build-splits.")],
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/stage2"),
    backbone: Annotated[
        str | None,
        typer.Option(help="tiny, a folder in Hugging Face form, or a hub id.", show_default="tiny"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Named settings: tiny (CPU) or base (GPU).")] = "tiny",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps.", show_default="the recipe's")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, order and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …", show_default="the recipe's")] = None,
    settings: SetOption = None,
    resume: ResumeTraining = False,
    as_json: JsonOption = False,
) -> None:
    """Train a diffusion policy driven by the frozen backbone through the intent bridge.

    Example: blm train stage2 --splits splits --backbone tiny --output runs/stage2
    """
    from blm.train.recipes import stage2_config
    from blm.train.stage2 import train_stage2

    config = stage2_config(
        recipe,
        overrides(settings),
        splits=splits,
        output=output,
        backbone=backbone,
        steps=steps,
        seed=seed,
        device=device,
        resume=resume,
    )
    with progress_bar(as_json) as progress:
        summary = train_stage2(config, progress)
    if as_json:
        print_json(plain(summary))
        return
    _print_training(summary)
    typer.echo(f"next: blm evaluate physical {summary.output} --rollouts 20 --output evaluation")


def _print_training(summary: Any) -> None:
    losses = ", ".join(f"{name} {value:.3g}" for name, value in summary.losses.items() if "loss" in name)
    typer.echo(
        f"{summary.output}: {counted(summary.steps, 'step')} at {summary.samples_per_second:.0f} samples/s, "
        f"{summary.seconds:.0f} s in all; {losses}"
    )
    if summary.validation:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in summary.validation.items())
        typer.echo(f"held-out: {figures}")
