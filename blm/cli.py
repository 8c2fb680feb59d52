"""The command line: one thin command per verb. Heavy libraries are imported inside the commands only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from blm import __version__

if TYPE_CHECKING:
    from blm.schemas.progress import Progress

ROBOTS = "so100, panda, xarm6, xarm7, widowxai"
TASKS = "pick-cube, push-cube, pull-cube, stack-cube, place-sphere, lift-peg-upright"


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
curate_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Turn recordings and sources into shards."
)
train_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train on shards.")
evaluate_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure a trained model.")
collect_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(collect_app, name="collect")
app.add_typer(curate_app, name="curate")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

KeepFailures = Annotated[bool, typer.Option("--keep-failures", help="Also keep episodes that failed.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of the camera images in pixels.", show_default="the camera's own")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
]
OverwriteBuild = Annotated[bool, typer.Option("--overwrite", help="Replace another build there.")]
ResumeTraining = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")]
ModelsOption = Annotated[
    str, typer.Option(help="Robot models: own (shipped), or menagerie (vendor meshes you have).")
]

ShadowsOption = Annotated[
    bool,
    typer.Option(
        "--shadows/--no-shadows", help="Without a GPU, leaving shadows out saves a third of a picture."
    ),
]
VarietyOption = Annotated[
    str,
    typer.Option(
        metavar="NAME,…",
        help="What varies between episodes: all, none, or some of lighting, colours, cameras, distractors.",
    ),
]

NoiseOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=3.0,
        help="Push the arm off its commands (1: by 1-2 cm); recorded actions stay clean and lead back.",
    ),
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
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from blm.schemas.printable import printable

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
            note = escape(printable(note, 200))
            if label not in known:
                known[label] = bars.add_task(label, total=total, completed=done, note=note)
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


def _checked(model: type[Any], **settings: Any) -> Any:
    from blm.schemas.yaml_model import validate

    return validate(model, settings, "command line")


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """What was typed; the rest keeps its default."""
    return {key: value for key, value in settings.items() if value is not None}


def _build_settings(
    given: dict[str, Any], config: Path | None, output: Path | None, default: Path, overwrite: bool
) -> dict[str, Any]:
    """What a build is told on the command line; its folder may also stand in the configuration file."""
    from blm.schemas.yaml_model import read_yaml

    if output is None and not (config and "output" in read_yaml(config)):
        output = default
    return _given(given | {"output": output, "overwrite": overwrite or None})


def _print_training(summary: Any) -> None:
    losses = ", ".join(f"{name} {value:.3g}" for name, value in summary.losses.items() if "loss" in name)
    typer.echo(
        f"{summary.output}: {summary.steps} steps in {summary.seconds:.0f} s "
        f"({summary.samples_per_second:.0f} samples/s); {losses}"
    )
    if summary.validation:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in summary.validation.items())
        typer.echo(f"held-out: {figures}")


def _print_inspections(inspections: Sequence[Any]) -> None:
    """A table per dataset, and the lines that would say the same."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from blm.schemas.printable import printable

    for one in inspections:
        path = printable(str(one.path))
        typer.echo(f"{one.name}: {one.episodes} episodes, {one.frames} frames, {path}")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("", "inferred", "because"):
            table.add_column(column)
        for row in one.found:
            table.add_row(row.what, escape(printable(row.value)), escape(printable(row.reason)))
        for wording, count in list(one.tasks.items())[:5]:
            table.add_row("task", escape(printable(wording, 200)) or "(none)", f"{count} episodes")
        Console().print(table)
        typer.echo(f"to override, in splits.yaml:\n{one.override}")


def _print_success(summary: Any) -> None:
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


def _print_build(output: Path, inputs: int, kept: int, dropped: dict[str, int], unit: str) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
    typer.echo(f"{output}: {inputs} {unit} in, {kept} kept, dropped: {reasons}")


def _print_diagnosis(diagnosis: Any) -> None:
    from blm.schemas.printable import printable

    unit = "episodes" if diagnosis.kind == "datasets" else f"samples of a {diagnosis.kind} build"
    for problem in diagnosis.problems:
        typer.secho(f"broken: {printable(problem)}", fg="red")
    for row in diagnosis.by_reason():
        colour = "red" if row["severity"] == "drop" else "yellow"
        typer.secho(f"{row['severity']}: {row['reason']}", fg=colour, nl=False)
        typer.echo(f", {_counted(row['episodes'], 'episode')}: {row['meaning']}")
        for worst in row["worst"]:
            note = f"  {printable(worst['note'], 300)}" if worst["note"] else ""
            typer.echo(
                f"    {worst['dataset']} {worst['episode']}: {worst['value']:.4g} {row['unit']} "
                f"(allowed {row['threshold']:g}){note}"
            )
        typer.echo(f"    {row['remedy']}")
    dropped, warned = diagnosis.count("drop"), diagnosis.count("warn")
    found = f"{_counted(dropped, 'finding')} that drop an episode, {_counted(warned, 'warning')}"
    broken = f", {_counted(len(diagnosis.problems), 'problem')} with the whole" if diagnosis.problems else ""
    clean = not (dropped or warned or diagnosis.problems)
    typer.echo(f"{diagnosis.path}: {diagnosis.examined} {unit}; {'clean' if clean else found + broken}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(summary: Any) -> dict[str, Any]:
    """A frozen dataclass (with models inside) as plain JSON-ready data."""
    return {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        for name, value in vars(summary).items()
    }


@collect_app.callback()
def collect(
    context: typer.Context,
    robot: Annotated[str, typer.Option(help=f"Robot: {ROBOTS}, or a YAML file.")] = "so100",
    task: Annotated[str, typer.Option(help=f"Task: {TASKS}, or a YAML file.")] = "pick-cube",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of the task the dataset shall hold.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Scene seed of the first attempt; the next ones follow.")
    ] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Dataset folder.", show_default="recordings/ROBOT-TASK")
    ] = None,
    operator: Annotated[
        str, typer.Option(help="Who demonstrates: planner, leader, gamepad, browser or policy:RUN.")
    ] = "planner",
    port: Annotated[
        str | None, typer.Option(help="Serial port or address of a real arm.", show_default="simulated")
    ] = None,
    leader_port: Annotated[str | None, typer.Option(help="Serial port of the leader arm.")] = None,
    camera: Annotated[
        list[str] | None, typer.Option(metavar="NAME=INDEX", help="Camera of a real arm; may be repeated.")
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list", help="Show the ports and cameras found, and exit.")
    ] = False,
    take_over: Annotated[
        str, typer.Option(help="With policy:RUN, what you take over with: browser, leader, gamepad.")
    ] = "browser",
    bind: Annotated[str, typer.Option(help="Address that the browser page is served at.")] = "127.0.0.1",
    web_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free one.")] = 0,
    keys: Annotated[
        str, typer.Option(metavar="KEY=CONTROL,…", help="Other keys or foot pedals, or a YAML file.")
    ] = "",
    review: Annotated[
        bool, typer.Option("--review/--no-review", help="Look at each episode before it is kept.")
    ] = True,
    episode_time: Annotated[float, typer.Option(min=1, help="Longest episode of a person, seconds.")] = 60.0,
    reset_time: Annotated[
        float | None,
        typer.Option(min=0, help="Start the next episode by itself, seconds.", show_default="you start it"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a recording begun earlier.")] = False,
    keep_failures: KeepFailures = False,
    image_size: ImageSize = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the dataset does not depend on it.")] = 1,
    models: ModelsOption = "own",
    shadows: ShadowsOption = True,
    variety: VarietyOption = "none",
    noise: NoiseOption = 0.0,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/NAME", help="Then upload it to the Hugging Face Hub, as a private dataset."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Record demonstrations into a LeRobot dataset.

    With nothing attached the robot is simulated and a motion planner demonstrates. A person may name several tasks,
    with commas.

    Example: blm collect --robot so100 --task pick-cube --episodes 10

    Example: blm collect --robot so100 --port /dev/ttyACM0 --operator leader --leader-port /dev/ttyACM1 --camera top=0
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    if list_devices:
        _list_devices()
        return
    from blm.collect.sim.variety import Variety

    if push_to_hub is not None:
        from blm.collect.hub import check_can_push

        check_can_push(push_to_hub)
    settings: dict[str, Any] = {
        "robot": robot,
        "task": task,
        "episodes": episodes,
        "seed": seed,
        "output": output or Path("recordings") / f"{Path(robot).stem}-{Path(_names(task)[0]).stem}",
        "operator": operator,
        "resume": resume,
        "keep_failures": keep_failures,
        "image_size": image_size,
        "workers": workers,
        "models": models,
        "shadows": shadows,
        "variety": Variety.parse(variety),
        "noise": noise,
    }
    if operator in ("leader", "gamepad", "browser") or operator.startswith("policy:"):
        live = {
            "task": _names(task)[0],
            "tasks": _names(task),
            "port": port,
            "leader_port": leader_port,
            "cameras": tuple(camera or ()),
            "take_over": take_over,
            "bind": bind,
            "web_port": web_port,
            "keys": keys,
            "review": review,
            "episode_s": episode_time,
            "reset_s": reset_time,
        }
        _collect_live(settings | live, as_json)
    elif port is not None:
        from blm.schemas.errors import UsageError

        raise UsageError(
            f"operator '{operator}' is not available on a real arm; there is: leader, gamepad, browser, policy:RUN.",
            "Example: --operator leader --leader-port /dev/ttyACM1",
        )
    else:
        _collect_planned(settings, as_json)
    if push_to_hub is not None:
        _push(settings["output"], push_to_hub, private=True, quiet=as_json)


def _collect_planned(settings: dict[str, Any], as_json: bool) -> None:
    from blm.collect.attempts import CollectConfig
    from blm.collect.session import collect as run

    config = _checked(CollectConfig, **settings)
    with _progress_bar(as_json) as progress:
        summary = run(config, progress)
    if as_json:
        _print_json(summary.model_dump(mode="json") | {"success_rate": summary.success_rate})
        return
    dropped = ", ".join(f"{count} {cause}" for cause, count in summary.dropped.items())
    typer.echo(
        f"{summary.output}: {summary.episodes} episodes; {summary.succeeded} of {summary.attempts} attempts "
        f"succeeded ({100 * summary.success_rate:.0f} %), {summary.frames_per_s:.0f} frames/s"
        + (f"; not kept: {dropped}" if dropped else "")
    )
    typer.echo(
        f"next: blm curate build-splits {summary.output} --output splits, or blm view {summary.output}"
    )


def _push(dataset: Path, repository: str, private: bool, quiet: bool = False) -> None:
    from blm.collect.hub import push_dataset

    address = push_dataset(dataset, repository, private=private)
    typer.echo(f"uploaded: {address}", err=quiet)


def _collect_live(settings: dict[str, Any], as_json: bool) -> None:
    """A person at the controls; what is said to them goes to standard error."""
    from blm.collect.live_config import LiveCollectConfig
    from blm.collect.live_workcell import collect_live

    policy = None
    if settings["operator"].startswith("policy:"):
        from blm.evaluate.agents import policy_agent

        policy, image_size = policy_agent(Path(settings["operator"].removeprefix("policy:")))
        settings = settings | {"image_size": settings["image_size"] or image_size}
    config = _checked(LiveCollectConfig, **settings)
    summary = collect_live(config, policy, announce=lambda line: typer.echo(line, err=True))
    if as_json:
        _print_json(asdict(summary))
        return
    typer.echo(
        f"{summary.output}: {summary.episodes} episodes; {summary.kept} kept now, {summary.dropped} not kept, "
        f"{summary.discarded} taken out again, {summary.late_ticks} late ticks"
    )
    if summary.episodes:
        typer.echo(f"next: blm curate build-splits {summary.output} --output splits")


def _list_devices() -> None:
    from blm.collect.robots.discovery import found

    devices = found()
    for port in devices.ports:
        about = ", ".join(filter(None, (port.description, port.serial_number)))
        typer.echo(f"port    {port.path}" + (f"  {about}" if about else ""))
    for camera in devices.cameras:
        size = f"{camera.width}×{camera.height} at {camera.rate_hz:g} Hz"
        typer.echo(f"camera  --camera NAME={camera.index}  {camera.kind} {size}")
    if not devices.ports:
        typer.echo("no serial ports found")
    if not devices.cameras:
        typer.echo("no cameras found")


def _refuse_options_before(context: typer.Context) -> None:
    """Options typed between `collect` and its subcommand would have no effect."""
    from blm.schemas.errors import UsageError

    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"{parameter.opts[0]} stands before '{context.invoked_subcommand}', where it has no effect.",
                f"Put it behind, or see: blm collect {context.invoked_subcommand} --help",
            )


@collect_app.command("suite")
def collect_suite(
    robots: Annotated[
        str, typer.Option(metavar="NAME,…", help=f"Robots: all, or some of {ROBOTS}, or YAML files.")
    ] = "all",
    tasks: Annotated[
        str, typer.Option(metavar="NAME,…", help=f"Tasks: all, or some of {TASKS}, or YAML files.")
    ] = "all",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per robot and task.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Scene seed of each pair's first attempt; the next ones follow.")
    ] = 0,
    output: Annotated[Path, typer.Option(help="Folder of the suite.")] = Path("recordings/suite"),
    workers: Annotated[int, typer.Option(min=1, help="Processes; no effect on what is recorded.")] = 2,
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Without: make no pictures, only count successes.")
    ] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a suite begun earlier.")] = False,
    keep_failures: KeepFailures = False,
    image_size: ImageSize = None,
    models: ModelsOption = "own",
    shadows: ShadowsOption = True,
    variety: VarietyOption = "none",
    noise: NoiseOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Record every robot at every task in simulation: a dataset per robot, and a report.

    What is recorded depends on the settings alone, not on the number of workers or on interruptions. Ctrl-C keeps
    everything so far.

    Example: blm collect suite --robots all --tasks all --episodes 100 --workers 2 --output recordings/suite
    """
    from blm.collect.sim.variety import Variety
    from blm.collect.suite import SuiteConfig
    from blm.collect.suite import collect_suite as run

    config = _checked(
        SuiteConfig,
        robots=_names(robots),
        tasks=_names(tasks),
        episodes=episodes,
        seed=seed,
        output=output,
        workers=workers,
        record=record,
        resume=resume,
        keep_failures=keep_failures,
        image_size=image_size,
        models=models,
        shadows=shadows,
        variety=Variety.parse(variety),
        noise=noise,
    )
    with _progress_bar(as_json) as progress:
        summary = run(config, progress)
    if as_json:
        typer.echo((summary.output / "suite.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print_suite(summary)
    if not summary.complete:
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _print_suite(summary: Any) -> None:
    """Success per robot and task, causes of failure, and how to go on."""
    from rich.console import Console
    from rich.table import Table

    from blm.collect.suite_report import counts_by_task

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("task", *summary.robots, "all"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for row in counts_by_task(summary):
        table.add_row(*row)
    Console().print(table)
    for pair in summary.pairs:
        for failure in pair.failures:
            typer.echo(f"{pair.name}: {len(failure.seeds)} × {failure.cause}")
    for pair in summary.pairs:
        if pair.error:
            typer.secho(f"{pair.name}: {pair.error}", fg="red", err=True)
    if summary.interrupted:
        typer.echo(f"stopped; everything so far is in {summary.output}")
        typer.echo("next: the same command with --resume goes on")
        return
    typer.echo(f"report: {summary.output / 'README.md'}")
    if summary.settings["record"]:
        datasets = " ".join(str(summary.output / robot) for robot in summary.robots)
        typer.echo(f"next: blm curate build-splits {datasets} --output splits")


@curate_app.command("inspect")
def inspect(
    datasets: Annotated[
        list[Path] | None,
        typer.Argument(help="LeRobot datasets: folders, folders of them, or ORG/NAME.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="splits.yaml; its datasets and their overrides.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is in datasets, and what was inferred: robot, axes, state, action, cameras. Nothing is built.

    Example: blm curate inspect recordings/so100-push-cube
    """
    from blm.curate.episodes.config import SplitsConfig, read_splits_config
    from blm.curate.episodes.inspection import inspect_datasets

    settings = _build_settings({"datasets": datasets or None}, config, None, Path("splits"), overwrite=False)
    built = read_splits_config(config, **settings) if config else _checked(SplitsConfig, **settings)
    with _progress_bar(as_json) as progress:
        inspections = inspect_datasets(built, progress)
    if as_json:
        _print_json({"datasets": [asdict(one) for one in inspections]})
        return
    _print_inspections(inspections)
    typer.echo(
        f"next: blm curate build-splits {' '.join(str(one.path) for one in inspections)} --output splits"
    )


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
    engine: Annotated[
        str | None, typer.Option(help="local or ray; no effect on the result.", show_default="local")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster.", show_default="RAY_ADDRESS, else one started here")
    ] = None,
    follow_links: Annotated[
        bool | None, typer.Option("--follow-links", help="Trust links that lead out of a dataset.")
    ] = None,
    overwrite: OverwriteBuild = False,
    as_json: JsonOption = False,
) -> None:
    """Turn recorded datasets into checked, split and sharded training data for stage 2.

    Given the folder of an earlier build with the same settings, only what has changed is written: add datasets, or
    record more, and run it again.

    Example: blm curate build-splits recordings/so100-pick-cube --output splits
    """
    from blm.curate.episodes.build import build_splits as run
    from blm.curate.episodes.config import SplitsConfig, read_splits_config

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
    }
    settings = _build_settings(given, config, output, Path("splits"), overwrite)
    built = read_splits_config(config, **settings) if config else _checked(SplitsConfig, **settings)
    with _progress_bar(as_json) as progress:
        summary = run(built, progress)
    if as_json:
        _print_json(_plain(summary))
        return
    _print_build(
        summary.output, summary.counts.inputs, summary.counts.kept, summary.counts.dropped, "episodes"
    )
    sizes = ", ".join(f"{split} {count}" for split, count in summary.samples.items())
    reused = f" ({summary.reused} of them reused)" if summary.reused else ""
    typer.echo(f"{summary.shards} shards{reused}, {summary.bytes / 1e6:.1f} MB; episodes per split: {sizes}")
    typer.echo(f"next: blm train stage2 --splits {summary.output} --backbone tiny --output runs/stage2")


@curate_app.command("build-corpus")
def build_corpus(
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND:PATH", help="lerobot, llava, parquet, images, … and a path; may be repeated."),
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
    overwrite: OverwriteBuild = False,
    as_json: JsonOption = False,
) -> None:
    """Turn recordings and conversation files into a corpus for stage 1.

    Questions about recorded episodes are generated, with answers computed from the recorded state.

    Example: blm curate build-corpus --source lerobot:recordings/so100-pick-cube --output corpus
    """
    from blm.curate.corpus.build import build_corpus as run
    from blm.curate.corpus.config import CorpusConfig, read_corpus_config

    given = {"sources": source or None, "questions_per_episode": questions, "seed": seed}
    given["benchmarks"] = benchmark or None
    settings = _build_settings(given, config, output, Path("corpus"), overwrite)
    built = read_corpus_config(config, **settings) if config else _checked(CorpusConfig, **settings)
    with _progress_bar(as_json) as progress:
        summary = run(built, progress)
    if as_json:
        _print_json(_plain(summary))
        return
    counts = summary.counts
    _print_build(summary.output, counts.inputs, counts.kept, counts.dropped, "conversations")
    sizes = ", ".join(f"{split} {count}" for split, count in summary.samples.items())
    typer.echo(f"{summary.shards} shards, {summary.bytes / 1e6:.1f} MB; conversations per split: {sizes}")
    typer.echo(f"report: {summary.output / 'report.html'}")
    typer.echo(f"next: blm train stage1 --corpus {summary.output} --backbone tiny --output runs/stage1")


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
        _overrides(settings),
        corpus=corpus,
        output=output,
        backbone=backbone,
        steps=steps,
        seed=seed,
        device=device,
        resume=resume,
    )
    with _progress_bar(as_json) as progress:
        summary = train_stage1(config, progress)
    if as_json:
        _print_json(_plain(summary))
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
        _overrides(settings),
        splits=splits,
        output=output,
        backbone=backbone,
        steps=steps,
        seed=seed,
        device=device,
        resume=resume,
    )
    with _progress_bar(as_json) as progress:
        summary = train_stage2(config, progress)
    if as_json:
        _print_json(_plain(summary))
        return
    _print_training(summary)
    typer.echo(f"next: blm evaluate physical {summary.output} --rollouts 20 --output evaluation")


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

    config = _checked(
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
        **_given({"seed": seed}),
    )
    with _progress_bar(as_json) as progress:
        summary = evaluate_physical(config, progress)
    if as_json:
        typer.echo((summary.output / "results.json").read_text(), nl=False)
        return
    _print_success(summary)
    typer.echo(f"report: {summary.output / 'report.html'}")


@app.command()
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

    with _progress_bar(as_json) as progress:
        diagnosis = diagnose(path, config, fast, progress)
    if as_json:
        _print_json(diagnosis.as_json())
    else:
        _print_diagnosis(diagnosis)
    raise typer.Exit(diagnosis.exit_code(strict))


@app.command()
def view(
    dataset: Annotated[Path, typer.Argument(help="A LeRobot v3 dataset's folder.", show_default=False)],
    episode: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Show this one first; with --output, only these (repeatable)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the page into this folder.", show_default="none")
    ] = None,
    serve: Annotated[
        bool | None,
        typer.Option(
            "--serve/--no-serve", help="Serve the page to this machine.", show_default="unless --output"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
) -> None:
    """Look at a dataset: videos, joints, actions and sub-tasks, episode by episode.

    Served until Ctrl-C, to this machine only; with --output, a folder that opens in a browser without a server.

    Example: blm view recordings/so100-pick-cube
    """
    from blm.pages.viewer.dataset import ViewedDataset
    from blm.schemas.errors import UsageError

    if serve is False and output is None:
        raise UsageError("--no-serve leaves nothing to do.", "Add --output DIR to write the page there.")
    viewed, episodes = ViewedDataset(dataset), episode or []
    if output is not None:
        from blm.pages.viewer.static_page import write_static_page

        with _progress_bar() as progress:
            typer.echo(f"page: {write_static_page(viewed, output, episodes, progress)}")
    if serve or output is None:
        from blm.pages.viewer.server import serve as run

        run(viewed, port, episodes[0] if episodes else None, _say_where)


def _say_where(address: str) -> None:
    typer.echo(f"open {address}")
    typer.echo("Ctrl-C ends it")


@app.command()
def push(
    dataset: Annotated[Path, typer.Argument(help="A recorded dataset's folder.", show_default=False)],
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="Its name there.", show_default=False)
    ],
    public: Annotated[bool, typer.Option("--public", help="For all to see, if it is made now.")] = False,
) -> None:
    """Upload a recorded dataset to the Hugging Face Hub, where stock LeRobot finds it.

    Private unless said otherwise. What the repository holds of an earlier upload is replaced; its history keeps it.

    Example: blm push recordings/so100-pick-cube my-lab/so100-pick-cube
    """
    _push(dataset, repository, private=not public)


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

    config = _checked(
        DemoConfig,
        output=output,
        episodes=episodes,
        rollouts=rollouts,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
    )
    with _progress_bar() as progress:
        summary = run_demo(config, progress)
    for chapter in summary.chapters:
        typer.echo(f"{chapter.name:<13} {chapter.seconds:5.0f} s  {chapter.result}")
    typer.echo("")
    _print_success(summary.physical)
    typer.echo(f"\n{summary.seconds / 60:.1f} minutes; report: {summary.report}")
