"""`blm collect` and `blm collect suite`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from blm.commands.collect_options import (
    Bind,
    Cameras,
    Episodes,
    EpisodeTime,
    Keys,
    LeaderPort,
    ListDevices,
    Operator,
    Output,
    Port,
    ResetTime,
    Resume,
    Review,
    Robot,
    Seed,
    TakeOver,
    TaskNames,
    WebPort,
    Workers,
    refuse_unread,
)
from blm.commands.datasets import check_can_push, push_if_asked
from blm.commands.options import (
    ROBOTS,
    TASKS,
    ImageSize,
    JsonOption,
    KeepFailures,
    ModelsOption,
    NoiseOption,
    PushOption,
    ShadowsOption,
    VarietyOption,
)
from blm.commands.terminal import checked, names, print_json, progress_bar

collect_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@collect_app.callback()
def collect(
    context: typer.Context,
    robot: Robot = "so100",
    task: TaskNames = "pick-cube",
    episodes: Episodes = 10,
    seed: Seed = 0,
    output: Output = None,
    operator: Operator = "planner",
    port: Port = None,
    leader_port: LeaderPort = None,
    camera: Cameras = None,
    list_devices: ListDevices = False,
    take_over: TakeOver = "browser",
    bind: Bind = "127.0.0.1",
    web_port: WebPort = 0,
    keys: Keys = "",
    review: Review = True,
    episode_time: EpisodeTime = 60.0,
    reset_time: ResetTime = None,
    resume: Resume = False,
    keep_failures: KeepFailures = False,
    image_size: ImageSize = None,
    workers: Workers = 1,
    models: ModelsOption = "own",
    shadows: ShadowsOption = True,
    variety: VarietyOption = "none",
    noise: NoiseOption = 0.0,
    push_to_hub: PushOption = None,
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
    from blm.collect.live_config import is_live
    from blm.collect.sim.variety import Variety

    check_can_push(push_to_hub)
    settings: dict[str, Any] = {
        "robot": robot,
        "task": task,
        "episodes": episodes,
        "seed": seed,
        "output": output or Path("recordings") / f"{Path(robot).stem}-{Path(names(task)[0]).stem}",
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
    if is_live(operator):
        live = {
            "task": names(task)[0],
            "tasks": names(task),
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
        _collect_live(context, settings | live, as_json)
    else:
        _refuse_operator(operator, on_real_arm=port is not None or robot.startswith("lerobot:"))
        refuse_unread(context, device=None, policy=False, real=False)
        _collect_planned(settings, as_json)
    push_if_asked(settings["output"], push_to_hub, quiet=as_json)


def _refuse_operator(operator: str, on_real_arm: bool) -> None:
    """Nobody but the planner demonstrates without a person, and it sees no real scene."""
    from blm.collect.live_config import HUMAN_OPERATORS
    from blm.schemas.errors import UsageError

    live = ", ".join([*HUMAN_OPERATORS, "lerobot:TYPE", "policy:RUN"])
    if operator != "planner":
        raise UsageError(
            f"operator '{operator}' is not available; there are: planner, {live}.",
            "Leave --operator away to let the planner demonstrate.",
        )
    if on_real_arm:
        raise UsageError(
            f"operator '{operator}' is not available on a real arm; there are: {live}.",
            "Example: --operator leader --leader-port /dev/ttyACM1",
        )


def _collect_planned(settings: dict[str, Any], as_json: bool) -> None:
    from blm.collect.attempts import CollectConfig
    from blm.collect.session import collect as run

    config = checked(CollectConfig, **settings)
    with progress_bar(as_json) as progress:
        summary = run(config, progress)
    if as_json:
        print_json(summary.model_dump(mode="json") | {"success_rate": summary.success_rate})
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


def _collect_live(context: typer.Context, settings: dict[str, Any], as_json: bool) -> None:
    """A person at the controls; what is said to them goes to standard error."""
    from blm.collect.live_config import LiveCollectConfig
    from blm.collect.live_workcell import check_device, collect_live

    config = checked(LiveCollectConfig, **settings)
    check_device(config)
    refuse_unread(context, device=config.device, policy=config.can_take_over, real=config.real)
    policy = None
    if config.can_take_over:
        from blm.evaluate.agents import policy_agent

        robot = None if config.real else config.embodiment().name
        policy, image_size = policy_agent(Path(config.operator.removeprefix("policy:")), robot)
        config = config.model_copy(update={"image_size": config.image_size or image_size})
    summary = collect_live(config, policy, announce=lambda line: typer.echo(line, err=True))
    if as_json:
        print_json(asdict(summary))
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

    config = checked(
        SuiteConfig,
        robots=names(robots),
        tasks=names(tasks),
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
    with progress_bar(as_json) as progress:
        summary = run(config, progress)
    if as_json:
        typer.echo((summary.output / "suite.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print_suite(summary)
    if not summary.complete:
        raise typer.Exit(1)


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
