"""Commands about what is there already: `blm doctor`, `blm view`, `blm push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from blm.commands.options import JsonOption
from blm.commands.terminal import counted, print_json, progress_bar


def doctor(
    path: Annotated[
        Path,
        typer.Argument(help="A LeRobot dataset, a folder of them, or a finished build.", show_default=False),
    ],
    config: Annotated[
        Path | None, typer.Option(help="splits.yaml whose thresholds and checks count.", show_default="none")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Leave videos and shards unread.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too (exit code 1).")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong with a dataset or a build, and say what to do about it.

    Episodes are judged as a build judges them. Exit code: 0 clean, 1 something is wrong, 2 nothing to look at.

    Example: blm doctor recordings/so100-pick-cube
    """
    from blm.curate.doctor import diagnose

    with progress_bar(as_json) as progress:
        diagnosis = diagnose(path, config, fast, progress)
    if as_json:
        print_json(diagnosis.as_json())
    else:
        _print_diagnosis(diagnosis)
    raise typer.Exit(diagnosis.exit_code(strict))


def view(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="Folder of a LeRobot v3 dataset or of splits, or ORG/NAME on the Hub.",
            show_default=False,
        ),
    ],
    episode: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Show this one first; with --output or --rerun, only these (repeatable)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the page into this folder.", show_default="none")
    ] = None,
    rerun: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.rrd|DIR",
            help="Write recordings for the Rerun viewer: one episode to a file, or each to its own in a folder.",
            show_default="none",
        ),
    ] = None,
    serve: Annotated[
        bool | None,
        typer.Option(
            "--serve/--no-serve", help="Serve the page to this machine.", show_default="unless writing"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
) -> None:
    """Look at recordings or splits: cameras, joints, actions and sub-tasks, episode by episode.

    Served until Ctrl-C, to this machine only; with --output, a folder that opens in a browser without a server.

    Example: blm view recordings/so100-pick-cube
    """
    from blm.commands.view_source import open_view
    from blm.schemas.errors import UsageError

    writes = output is not None or rerun is not None
    if serve is False and not writes:
        raise UsageError(
            "--no-serve leaves nothing to do.", "Add --output DIR or --rerun FILE.rrd to write something."
        )
    source, episodes = open_view(dataset), episode or []
    if output is not None:
        from blm.pages.viewer.static_page import write_static_page

        with progress_bar() as progress:
            typer.echo(f"page: {write_static_page(source, output, episodes, progress)}")
    if rerun is not None:
        from blm.pages.viewer.rerun_export import export_rerun

        with progress_bar() as progress:
            files = export_rerun(source, rerun, episodes, progress)
        typer.echo(f"{counted(len(files), 'recording')}: {rerun}")
        typer.echo(f"next: rerun {rerun if rerun.is_file() else rerun / '*.rrd'}")
    if serve or not writes:
        from blm.pages.viewer.server import serve as run

        run(source, port, episodes[0] if episodes else None, _say_where)


def push(
    dataset: Annotated[
        Path, typer.Argument(help="Folder of a recorded dataset, a corpus or splits.", show_default=False)
    ],
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="Its name there.", show_default=False)
    ],
    public: Annotated[bool, typer.Option("--public", help="For all to see, if it is made now.")] = False,
) -> None:
    """Upload a recorded dataset to the Hugging Face Hub, where stock LeRobot finds it; or a finished build.

    Private unless said otherwise. What the repository holds of an earlier upload is replaced; its history keeps it.
    Of a build its own files are uploaded; its manifest and report name the paths of its inputs here.

    Example: blm push recordings/so100-pick-cube my-lab/so100-pick-cube
    """
    _upload(dataset, repository, private=not public)


def check_can_push(repository: str | None) -> None:
    """Of a command's `--push-to-hub`, before its work; raises as `blm.hub.check_can_push`."""
    if repository is not None:
        from blm.hub import check_can_push

        check_can_push(repository)


def push_if_asked(folder: Path, repository: str | None, quiet: bool) -> None:
    """Of a command's `--push-to-hub`, after its work."""
    if repository is not None:
        _upload(folder, repository, private=True, quiet=quiet)


def _upload(dataset: Path, repository: str, private: bool, quiet: bool = False) -> None:
    from blm.schemas.manifest import MANIFEST_FILE

    if (dataset / MANIFEST_FILE).is_file():
        from blm.curate.hub import push_build as push_folder
    else:
        from blm.collect.hub import push_dataset as push_folder
    address = push_folder(dataset, repository, private=private)
    typer.echo(f"uploaded: {address}", err=quiet)


def _say_where(address: str) -> None:
    typer.echo(f"open {address}")
    typer.echo("Ctrl-C ends it")


def _print_diagnosis(diagnosis: Any) -> None:
    from blm.schemas.printable import printable

    unit = "episodes" if diagnosis.kind == "datasets" else f"samples of a {diagnosis.kind} build"
    for problem in diagnosis.problems:
        typer.secho(f"broken: {printable(problem)}", fg="red")
    for row in diagnosis.by_reason():
        colour = "red" if row["severity"] == "drop" else "yellow"
        typer.secho(f"{row['severity']}: {row['reason']}", fg=colour, nl=False)
        typer.echo(f", {counted(row['episodes'], 'episode')}: {row['meaning']}")
        for worst in row["worst"]:
            note = f"  {printable(worst['note'], 300)}" if worst["note"] else ""
            typer.echo(
                f"    {worst['dataset']} {worst['episode']}: {worst['value']:.4g} {row['unit']} "
                f"(allowed {row['threshold']:g}){note}"
            )
        typer.echo(f"    {row['remedy']}")
    dropped, warned = diagnosis.count("drop"), diagnosis.count("warn")
    drop = "drops" if dropped == 1 else "drop"
    found = f"{counted(dropped, 'finding')} that {drop} an episode, {counted(warned, 'warning')}"
    broken = f", {counted(len(diagnosis.problems), 'problem')} with the whole" if diagnosis.problems else ""
    clean = not (dropped or warned or diagnosis.problems)
    typer.echo(f"{diagnosis.path}: {diagnosis.examined} {unit}; {'clean' if clean else found + broken}")
