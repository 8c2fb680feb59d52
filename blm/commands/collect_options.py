"""Options of `blm collect`, and which of them mean nothing to whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from blm.commands.options import ROBOTS, TASKS

Robot = Annotated[str, typer.Option(help=f"Robot: {ROBOTS}, or a YAML file.")]
TaskNames = Annotated[str, typer.Option(help=f"Task: {TASKS}, or a YAML file.")]
Episodes = Annotated[int, typer.Option(min=1, help="Episodes of the task the dataset shall hold.")]
Seed = Annotated[int, typer.Option(min=0, help="Scene seed of the first attempt; the next ones follow.")]
Output = Annotated[Path | None, typer.Option(help="Dataset folder.", show_default="recordings/ROBOT-TASK")]
Operator = Annotated[
    str, typer.Option(help="Who demonstrates: planner, leader, gamepad, browser, lerobot:TYPE, policy:RUN.")
]
Port = Annotated[
    str | None, typer.Option(help="Serial port or address of a real arm.", show_default="simulated")
]
LeaderPort = Annotated[str | None, typer.Option(help="Serial port of the leader arm.")]
Cameras = Annotated[
    list[str] | None, typer.Option(metavar="NAME=INDEX", help="Camera of a real arm; may be repeated.")
]
ListDevices = Annotated[bool, typer.Option("--list", help="Show the ports and cameras found, and exit.")]
TakeOver = Annotated[
    str, typer.Option(help="With policy:RUN, what you take over with: browser, leader, gamepad.")
]
Bind = Annotated[str, typer.Option(help="Address that the browser page is served at.")]
WebPort = Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free one.")]
Keys = Annotated[
    str, typer.Option(metavar="KEY=CONTROL,…", help="Other keys or foot pedals, or a YAML file.")
]
Review = Annotated[bool, typer.Option("--review/--no-review", help="Look at each episode before it is kept.")]
EpisodeTime = Annotated[float, typer.Option(min=1, help="Longest episode of a person, seconds.")]
ResetTime = Annotated[
    float | None,
    typer.Option(min=0, help="Start the next episode by itself, seconds.", show_default="you start it"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a recording begun earlier.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes; the dataset does not depend on it.")]

_ALONE = "the planner works alone, in simulation"
_NOT_FOR_PLANNER: dict[str, str] = dict.fromkeys(
    (
        "leader_port",
        "camera",
        "take_over",
        "bind",
        "web_port",
        "keys",
        "review",
        "episode_time",
        "reset_time",
    ),
    _ALONE,
)
_NOT_FOR_PERSONS = {
    "workers": "episodes with a person at the controls are recorded one after the other",
    "noise": "only the planner's motion is disturbed",
}
_NOT_FOR_REAL_ARMS = {
    "variety": "a real scene is varied by hand",
    "shadows": "a real scene has those it has",
    "image_size": "real cameras are given their size one by one, as in --camera top=0@640x480",
}


def refuse_unread(context: typer.Context, *, device: str | None, policy: bool, real: bool) -> None:
    """Options that were typed and would have no effect.

    `device` is what a person drives with, None for the planner; `policy`: it only takes over from one; `real`: the arm
    is no simulated one.

    Raises:
        UsageError: names the first of them, and why.
    """
    from blm.schemas.errors import UsageError

    unread = _unread(device, policy, real)
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in unread and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} has no effect here: {unread[name]}.", "Leave it away.")


def _unread(device: str | None, policy: bool, real: bool) -> Mapping[str, str]:
    """Option → why nobody would read it."""
    if device is None:
        return _NOT_FOR_PLANNER
    unread = dict(_NOT_FOR_PERSONS)
    if real:
        unread |= _NOT_FOR_REAL_ARMS
    if not policy:
        unread["take_over"] = "a person takes over from a policy only (--operator policy:RUN)"
    if device in ("gamepad", "browser"):
        unread["leader_port"] = f"the {device} drives, not a leader arm"
    if device != "browser":
        unread |= dict.fromkeys(("bind", "web_port"), f"the {device} drives, and no page is served")
    return unread
