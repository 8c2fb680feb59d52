"""Options that several commands share, and the names they speak of."""

from __future__ import annotations

from typing import Annotated

import typer

ROBOTS = "so100, panda, xarm6, xarm7, widowxai"
TASKS = "pick-cube, push-cube, pull-cube, stack-cube, place-sphere, lift-peg-upright"

KeepFailures = Annotated[bool, typer.Option("--keep-failures", help="Also keep episodes that failed.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of the camera images in pixels.", show_default="the camera's own")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
]
PushOption = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="ORG/NAME",
        help="Then upload it to the Hugging Face Hub, as a private dataset.",
    ),
]
EngineOption = Annotated[
    str | None, typer.Option(help="local or ray; no effect on the result.", show_default="local")
]
RayAddressOption = Annotated[
    str | None, typer.Option(help="Ray cluster.", show_default="RAY_ADDRESS, else one started here")
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
