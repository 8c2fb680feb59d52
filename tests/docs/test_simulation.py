"""The table of differences from ManiSkill 3 says what the tasks' files say, all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from blm.schemas.embodiment import load_embodiment

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
TASKS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "blm/schemas/tasks").glob("*.yaml")}
PICK_CUBE_OF_MANISKILL: Mapping[str, Mapping[str, Any]] = {
    "so100": {
        "objects.cube.half_size": [0.0125] * 3,
        "objects.cube.spawn.x": [-0.05, 0.05],
        "objects.cube.spawn.y": [-0.05, 0.05],
        "goal.x": [-0.05, 0.05],
        "goal.y": [-0.05, 0.05],
    },
    "widowxai": {
        "objects.cube.half_size": [0.018] * 3,
        "objects.cube.spawn.x": [-0.05, 0.05],
        "objects.cube.spawn.y": [-0.05, 0.05],
        "goal.radius_m": 0.0225,
        "goal.x": [-0.05, 0.05],
        "goal.y": [-0.05, 0.05],
        "success.at_goal.at_most": 0.0225,
    },
}
"""`pick_cube_cfgs.py` of ManiSkill 3 for the small arms, as far as ours are equal."""


def _rows(heading: str) -> list[list[str]]:
    """Cells of the table below the line that starts with `heading`."""
    lines = DOCUMENT.split(heading, 1)[1].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


ROWS = _rows("| task | robot | key |")


def _value(content: Mapping[str, Any], key: str) -> Any:
    found: Any = content
    for part in key.split("."):
        found = found[part]
    return found


def _leaves(content: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(content, Mapping):
        yield before, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{before}.{key}" if before else key)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:3]))
def test_a_row_shows_what_the_file_says_and_a_reason(row: list[str]) -> None:
    task, robot, key, theirs, ours, why = row
    content = TASKS[task] if robot == "all" else TASKS[task]["per_embodiment"][robot]
    assert _value(content, key) == yaml.safe_load(ours)
    assert theirs != ours
    assert len(why) > 5


@pytest.mark.parametrize("task", TASKS)
def test_whatever_a_task_changes_for_a_robot_is_in_the_table_or_as_in_maniskill(task: str) -> None:
    listed = {tuple(row[:3]) for row in ROWS}
    for robot, changes in TASKS[task].get("per_embodiment", {}).items():
        for key, value in _leaves(changes):
            if (task, robot, key) in listed:
                continue
            same = PICK_CUBE_OF_MANISKILL[robot] if task == "pick-cube" else TASKS[task]
            assert _value_of(same, key) == value, f"{task}, {robot}: {key} is not in docs/simulation.md"


def _value_of(same: Mapping[str, Any], key: str) -> Any:
    return same[key] if key in same else _value(same, key)


def test_the_bases_stand_where_the_table_says() -> None:
    rows = _rows("| robot | ManiSkill 3, base")
    assert {row[0] for row in rows} == {"panda", "so100", "widowxai", "xarm6", "xarm7"}
    for robot, _, ours in rows:
        assert load_embodiment(robot).base_position == (-float(ours), 0.0, 0.0)


def test_payloads_and_torques_of_the_robots_are_the_embodiments() -> None:
    for row in _rows("| robot | kinematics, masses |"):
        embodiment = load_embodiment(row[0])
        payload = embodiment.payload_kg
        assert row[3] == ("not published" if payload is None else f"{payload:g} kg")
        arm = {embodiment.axes[index].max_torque for index in embodiment.arm_indices}
        for torque in arm:
            assert f"{torque:g}" in row[2], (row[0], torque)


def test_its_pictures_are_there() -> None:
    for name in ("robots.png", "cameras.png"):
        assert f"(pictures/{name})" in DOCUMENT
        assert 10_000 < (ROOT / "docs" / "pictures" / name).stat().st_size < 400_000
