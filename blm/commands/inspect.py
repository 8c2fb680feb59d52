"""`blm curate inspect`: what is in a dataset, in a corpus, or in one record of a corpus."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blm.commands.options import JsonOption
from blm.commands.terminal import checked, counted, print_json, progress_bar, refuse_nothing

if TYPE_CHECKING:
    from blm.curate.corpus.lookup import Corpus, DroppedInput, KeptRecord

_DEFAULT_CORPUS = Path("corpus")


def inspect(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASET… | CORPUS | ID",
            help="LeRobot datasets (folders, folders of them, ORG/NAME), a corpus, or the id of a record.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="splits.yaml; its datasets and their overrides.")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="The build to look an id up in.", show_default="corpus")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File for the page of a record.", show_default="a temporary one"),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page of a record in the browser.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Show what is in datasets, and what was inferred: robot, axes, state, action, cameras. Nothing is built.

    Given a corpus, show what is in it. Given the id of a record of a corpus, show what is said, the images, and its
    lineage, here and as a page; of one that was left out, why.

    Example: blm curate inspect recordings/so100-push-cube

    Example: blm curate inspect so100-push-cube-000003-007 --corpus corpus
    """
    asked = what or []
    refuse_nothing(
        asked or config, "datasets", "Name their folders or ORG/NAME, a corpus, or the id of a record."
    )
    if corpus is None and len(asked) == 1 and _is_build(Path(asked[0])):
        _show_corpus(Path(asked[0]), as_json)
    elif asked and (corpus is not None or not any(map(_is_dataset, asked))):
        _show_record(asked, corpus or _DEFAULT_CORPUS, output, open_page and not as_json, as_json)
    else:
        _show_datasets([Path(one) for one in asked], config, as_json)


def _is_build(folder: Path) -> bool:
    from blm.schemas.manifest import MANIFEST_FILE

    return (folder / MANIFEST_FILE).is_file()


def _is_dataset(name: str) -> bool:
    """A place on this machine or the Hub; ids of records hold no slash."""
    return "/" in name or os.sep in name or Path(name).exists()


def _show_datasets(datasets: Sequence[Path], config: Path | None, as_json: bool) -> None:
    from blm.curate.episodes.config import SplitsConfig, read_splits_config
    from blm.curate.episodes.inspection import inspect_datasets

    settings: dict[str, Any] = {"datasets": list(datasets)} if datasets else {}
    settings["output"] = Path("splits")
    built = read_splits_config(config, **settings) if config else checked(SplitsConfig, **settings)
    with progress_bar(as_json) as progress:
        inspections = inspect_datasets(built, progress)
    usable = [one for one in inspections if not one.problem]
    refused = len(usable) < len(inspections) and built.broken_datasets == "refuse"
    if as_json:
        print_json({"datasets": [asdict(one) for one in inspections]})
    else:
        _print_inspections(inspections)
        if refused:
            typer.echo(
                f"{len(inspections) - len(usable)} of {len(inspections)} datasets cannot be used: "
                "a build refuses them, or goes on without: --broken-datasets skip"
            )
        if usable:
            places = " ".join(str(one.path) for one in usable)
            whole = config is not None and not datasets and not refused
            build = f"--config {config}" if whole else f"{places} --output splits"
            typer.echo(f"next: blm curate build-splits {build}")
    if refused:
        raise typer.Exit(1)


def _print_inspections(inspections: Sequence[Any]) -> None:
    """A table per dataset, and the lines that would say the same."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from blm.schemas.printable import printable

    for one in inspections:
        path = printable(str(one.path))
        if one.problem:
            typer.secho(f"{one.name}: cannot be used. {printable(one.problem)}\n", fg="red")
        if not one.found:
            continue
        typer.echo(f"{one.name}: {counted(one.episodes, 'episode')}, {counted(one.frames, 'frame')}, {path}")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("", "inferred", "because"):
            table.add_column(column)
        for row in one.found:
            table.add_row(row.what, escape(printable(row.value)), escape(printable(row.reason)))
        for wording, count in list(one.tasks.items())[:5]:
            table.add_row("task", escape(printable(wording, 200)) or "(none)", counted(count, "episode"))
        Console().print(table)
        typer.echo(f"to override, in splits.yaml:\n{one.override}")


def _show_corpus(folder: Path, as_json: bool) -> None:
    """What a finished corpus comes to, and how to ask for one of its records."""
    from blm.curate.corpus.lookup import Corpus
    from blm.curate.episodes.splits import SPLITS

    corpus = Corpus(folder)
    manifest, example = corpus.manifest, corpus.some_id()
    if as_json:
        print_json(manifest.model_dump(mode="json", exclude={"config"}) | {"example": example})
        return
    counts = manifest.counts
    dropped = ", ".join(f"{count} {reason}" for reason, count in counts.dropped.items()) or "none"
    kept = f"{counts.kept} kept, dropped: {dropped}"
    rows = [("", f"{counted(counts.inputs, 'conversation')} in, {kept}")]
    rows.append(("splits", ", ".join(f"{name} {manifest.splits[name]}" for name in SPLITS)))
    for one in manifest.inputs:
        families = [
            f"{label.removeprefix(f'{one.name}/')} {count}"
            for label, count in manifest.breakdown.items()
            if label.startswith(f"{one.name}/")
        ]
        rows.append(
            ("source", f"{one.name} ({one.kind}) {one.path}\n{', '.join(families) or 'nothing kept'}")
        )
    typer.echo(f"{folder}: a corpus")
    _print_rows(rows)
    typer.echo(f"report: {folder / 'report.html'}")
    if example:
        typer.echo(f"next: blm curate inspect {example} --corpus {folder}")


def _show_record(
    names: Sequence[str], folder: Path, output: Path | None, open_page: bool, as_json: bool
) -> None:
    from blm.curate.corpus.lookup import Corpus
    from blm.curate.corpus.record_page import as_json as content_of
    from blm.curate.corpus.record_page import write_record_page
    from blm.schemas.errors import UsageError

    if len(names) > 1:
        raise UsageError(f"{len(names)} ids are more than one.", "Ask for one record at a time.")
    if not folder.is_dir():
        raise UsageError(
            f"'{names[0]}' is no folder here, and there is no corpus in {folder} to look it up in.",
            "Give a dataset's folder, or the id of a record and --corpus FOLDER.",
        )
    corpus = Corpus(folder)
    found = corpus.find(names[0])
    if as_json:
        print_json(content_of(corpus, found))
    else:
        _print_record(corpus, found)
    if as_json and output is None:
        return
    path = output or Path(tempfile.mkdtemp(prefix="blm-record-")) / "record.html"
    page = write_record_page(corpus, found, path)
    typer.echo(f"page: {page.as_uri()}", err=as_json)
    if open_page and _has_screen():
        webbrowser.open(page.as_uri())


def _print_record(corpus: Corpus, found: KeptRecord | DroppedInput) -> None:
    from blm.curate.corpus.lookup import KeptRecord
    from blm.curate.corpus.record_page import lineage, reasons, spoken

    kept = found if isinstance(found, KeptRecord) else found.kept
    if isinstance(found, KeptRecord):
        typer.echo(f"{found.record.id}: kept, split {found.record.split}")
    else:
        typer.echo(f"{found.row} of {found.source_name}: left out")
        _print_rows(reasons(found))
        if found.content is not None:
            typer.echo("it said, before quality rules and masks:")
            _print_rows([(message.role, spoken(message)) for message in found.content.record.messages])
    if kept is None:
        return
    if kept is not found:
        typer.echo(f"{kept.record.id} stands for it: kept, split {kept.record.split}")
    _print_rows([(message.role, spoken(message)) for message in kept.record.messages])
    typer.echo("lineage:")
    _print_rows(lineage(corpus, kept))


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Labels, and texts beside them, that may have several lines."""
    from blm.schemas.printable import printable

    wide = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        first, *others = printable(text).splitlines() or [""]
        typer.echo(f"  {label:<{wide}}  {first}".rstrip())
        for line in others:
            typer.echo(f"  {'':<{wide}}  {line}".rstrip())


def _has_screen() -> bool:
    """Whether a browser would open beside the terminal and not in it."""
    if sys.platform != "linux" or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
