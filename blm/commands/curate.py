"""`blm curate`: look at datasets, build splits, build a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from blm.commands.datasets import check_can_push, push_if_asked
from blm.commands.inspect import inspect
from blm.commands.options import EngineOption, JsonOption, OverwriteBuild, PushOption, RayAddressOption
from blm.commands.terminal import checked, given_only, plain, print_json, progress_bar, refuse_nothing
from blm.schemas.printable import printable

curate_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Turn recordings and sources into shards."
)


curate_app.command("inspect")(inspect)


@curate_app.command("build-splits")
def build_splits(
    datasets: Annotated[
        list[Path] | None,
        typer.Argument(help="LeRobot datasets: folders, folders of them, or ORG/NAME.", show_default=False),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the build.", show_default="splits")] = None,
    config: Annotated[Path | None, typer.Option(help="splits.yaml; options here win over it.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the stored images in pixels.", show_default="as recorded")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides which episode goes to which split.")] = None,
    lossless: Annotated[
        bool | None, typer.Option("--lossless", help="Store images as lossless WebP, not JPEG.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; no effect on the result.")] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.25, help="GB that indexing may use.", show_default="2")
    ] = None,
    engine: EngineOption = None,
    ray_address: RayAddressOption = None,
    follow_links: Annotated[
        bool | None, typer.Option("--follow-links", help="Trust links that lead out of a dataset.")
    ] = None,
    broken_datasets: Annotated[
        str | None,
        typer.Option(
            metavar="refuse|skip",
            help="When a dataset cannot be used: build nothing, or the others and say so.",
            show_default="refuse",
        ),
    ] = None,
    overwrite: OverwriteBuild = False,
    push_to_hub: PushOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn recorded datasets into checked, split and sharded training data for stage 2.

    Given the folder of an earlier build with the same settings, only what has changed is written: add datasets, or
    record more, and run it again.

    Example: blm curate build-splits recordings/so100-pick-cube --output splits
    """
    from blm.curate.episodes.build import build_splits as run
    from blm.curate.episodes.config import SplitsConfig, read_splits_config

    refuse_nothing(
        datasets or config, "datasets", "Name their folders or ORG/NAME, or give --config splits.yaml."
    )
    check_can_push(push_to_hub)
    given = {
        "datasets": datasets or None,
        "image_size": image_size,
        "seed": seed,
        "lossless": lossless,
        "workers": workers,
        "memory": memory,
        "engine": engine,
        "ray_address": ray_address,
        "follow_links": follow_links,
        "broken_datasets": broken_datasets,
    }
    settings = _build_settings(given, config, output, Path("splits"), overwrite)
    built = read_splits_config(config, **settings) if config else checked(SplitsConfig, **settings)
    with progress_bar(as_json) as progress:
        summary = run(built, progress)
    if as_json:
        print_json(plain(summary))
    else:
        _print_splits(summary)
    push_if_asked(summary.output, push_to_hub, quiet=as_json)


@curate_app.command("build-corpus")
def build_corpus(
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:PATH", help="lerobot, llava, parquet, images, … and a path; may be repeated."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the build.", show_default="corpus")] = None,
    config: Annotated[Path | None, typer.Option(help="corpus.yaml; options here win over it.")] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, help="Questions asked about each recorded episode.")
    ] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(help="File of questions that must not be trained on; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides wordings, frames and splits.")] = None,
    parquet: Annotated[
        bool | None,
        typer.Option("--parquet", help="Also write Parquet files for `datasets`, images included."),
    ] = None,
    allow_download: Annotated[
        bool | None,
        typer.Option("--allow-download", help="Fetch media that rows name by https address."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that check; no effect on the result.", show_default="1"),
    ] = None,
    engine: EngineOption = None,
    ray_address: RayAddressOption = None,
    overwrite: OverwriteBuild = False,
    push_to_hub: PushOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn recordings and conversation files into a corpus for stage 1.

    Questions about recorded episodes are generated, with answers computed from the recorded state.

    Example: blm curate build-corpus --source lerobot:recordings/so100-pick-cube --output corpus
    """
    from blm.curate.corpus.build import build_corpus as run
    from blm.curate.corpus.config import CorpusConfig, read_corpus_config

    refuse_nothing(
        source or config, "sources", "Name them with --source KIND:PATH, or give --config corpus.yaml."
    )
    check_can_push(push_to_hub)
    given = {"sources": source or None, "questions_per_episode": questions, "seed": seed}
    given |= {"benchmarks": benchmark or None, "parquet": parquet, "allow_download": allow_download}
    given |= {"workers": workers, "engine": engine, "ray_address": ray_address}
    settings = _build_settings(given, config, output, Path("corpus"), overwrite)
    built = read_corpus_config(config, **settings) if config else checked(CorpusConfig, **settings)
    with progress_bar(as_json) as progress:
        summary = run(built, progress)
    if as_json:
        print_json(plain(summary))
    else:
        _print_corpus(summary)
    push_if_asked(summary.output, push_to_hub, quiet=as_json)


def _build_settings(
    given: dict[str, Any], config: Path | None, output: Path | None, default: Path, overwrite: bool
) -> dict[str, Any]:
    """What a build is told on the command line; its folder may also stand in the configuration file."""
    from blm.schemas.yaml_model import read_yaml

    if output is None and not (config and "output" in read_yaml(config)):
        output = default
    return given_only(given | {"output": output, "overwrite": overwrite or None})


def _print_splits(summary: Any) -> None:
    _print_build(
        summary.output, summary.counts.inputs, summary.counts.kept, summary.counts.dropped, "episodes"
    )
    _print_skipped(summary.skipped)
    sizes = ", ".join(f"{split} {count}" for split, count in summary.samples.items())
    reused = f" ({summary.reused} of them reused)" if summary.reused else ""
    typer.echo(f"{summary.shards} shards{reused}, {summary.bytes / 1e6:.1f} MB; episodes per split: {sizes}")
    typer.echo(f"report: {summary.output / 'report.html'}")
    typer.echo(f"next: blm train stage2 --splits {summary.output} --backbone tiny --output runs/stage2")


def _print_corpus(summary: Any) -> None:
    counts = summary.counts
    _print_build(summary.output, counts.inputs, counts.kept, counts.dropped, "conversations")
    if summary.unchanged:
        typer.echo(f"unchanged, so not read again: {', '.join(summary.unchanged)}")
    sizes = ", ".join(f"{split} {count}" for split, count in summary.samples.items())
    typer.echo(f"{summary.shards} shards, {summary.bytes / 1e6:.1f} MB; conversations per split: {sizes}")
    _print_empty(summary.empty)
    typer.echo(f"report: {summary.output / 'report.html'}")
    typer.echo(f"next: blm train stage1 --corpus {summary.output} --backbone tiny --output runs/stage1")


def _print_empty(sources: tuple[Any, ...]) -> None:
    """A line per source of which nothing is left."""
    for one in sources:
        reasons = ", ".join(f"{count} {reason}" for reason, count in one.dropped.items()) or "it holds none"
        example = f"; for example: {printable(one.example, 300)}" if one.example else ""
        typer.secho(f"nothing is left of {one.name}: {reasons}{example}", fg="yellow")


def _print_skipped(skipped: tuple[Any, ...]) -> None:
    """A line per dataset that is not in the build because it is broken."""
    for one in skipped:
        announced = "an unknown number of" if one.episodes is None else f"{one.episodes} announced"
        typer.secho(f"left out: {one.name}, {announced} episodes: {one.problem} {one.remedy}", fg="red")


def _print_build(output: Path, inputs: int, kept: int, dropped: dict[str, int], unit: str) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
    typer.echo(f"{output}: {inputs} {unit} in, {kept} kept, dropped: {reasons}")
