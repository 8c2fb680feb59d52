import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.collect.sim.objects import bin_rim_m, draw_goal, draw_placements, pose_of
from blm.schemas.embodiment import embodiment_names
from blm.schemas.errors import ConfigError, SimulationError
from blm.schemas.task import Task, load_task, task_names

seeds = st.integers(min_value=0, max_value=2**32 - 1)
pairs = st.tuples(st.sampled_from(embodiment_names()), st.sampled_from(task_names()))


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def changed(task: Task, name: str, **spawn: object) -> Task:
    thing = task.objects[name]
    thing = thing.model_copy(update={"spawn": thing.spawn.model_copy(update=spawn)})
    return task.model_copy(update={"objects": {**task.objects, name: thing}})


@given(pair=pairs, seed=seeds)
@settings(max_examples=200, deadline=None)
def test_starts_stay_in_their_ranges_and_clear_of_each_other(pair: tuple[str, str], seed: int) -> None:
    task = load_task(pair[1], pair[0])
    placements = draw_placements(task, generator(seed))
    assert list(placements) == list(task.objects)
    earlier: list[np.ndarray] = []
    for name, thing in task.objects.items():
        placement = placements[name]
        assert thing.spawn.x[0] <= placement.x <= thing.spawn.x[1]
        assert thing.spawn.y[0] <= placement.y <= thing.spawn.y[1]
        assert thing.spawn.yaw_deg[0] - 1e-9 <= np.rad2deg(placement.yaw_rad) <= thing.spawn.yaw_deg[1] + 1e-9
        here = np.array([placement.x, placement.y])
        assert all(np.linalg.norm(here - other) >= thing.spawn.clearance_m for other in earlier)
        earlier.append(here)


@given(pair=pairs, seed=seeds)
@settings(max_examples=100, deadline=None)
def test_goals_stay_in_their_ranges(pair: tuple[str, str], seed: int) -> None:
    task = load_task(pair[1], pair[0])
    random = generator(seed)
    placements = draw_placements(task, random)
    position = draw_goal(task, placements, random)
    if task.goal is None:
        assert position is None
        return
    assert position is not None
    if task.goal.x is not None:
        for value, bounds in zip(position, (task.goal.x, task.goal.y, task.goal.z), strict=True):
            assert bounds is not None
            assert bounds[0] <= value <= bounds[1]
    else:
        start = placements[str(task.goal.relative_to)]
        offset = np.array(task.goal.offset)
        np.testing.assert_allclose(position, [start.x + offset[0], start.y + offset[1], 0.0], atol=1e-12)


@given(seed=seeds)
def test_relative_starts_are_offsets(seed: int) -> None:
    task = changed(
        load_task("stack-cube", "panda"),
        "cube",
        relative_to="base",
        x=(0.1, 0.12),
        y=(-0.01, 0.01),
        clearance_m=0.0,
    )
    placements = draw_placements(task, generator(seed))
    assert 0.1 <= placements["cube"].x - placements["base"].x <= 0.12
    assert -0.01 <= placements["cube"].y - placements["base"].y <= 0.01


def test_a_start_relative_to_a_later_object_names_both() -> None:
    task = changed(load_task("stack-cube", "panda"), "base", relative_to="cube")
    with pytest.raises(ConfigError, match="'base' is placed relative to 'cube'"):
        draw_placements(task, generator(0))


def test_an_impossible_clearance_is_reported() -> None:
    task = changed(load_task("stack-cube", "panda"), "cube", clearance_m=5.0)
    with pytest.raises(SimulationError, match=r"'cube' is 5\.0 m clear"):
        draw_placements(task, generator(0))


@pytest.mark.parametrize("embodiment", embodiment_names())
def test_the_ball_fits_between_the_rims(embodiment: str) -> None:
    task = load_task("place-sphere", embodiment)
    tray, ball = task.objects["bin"], task.objects["sphere"]
    thickness, _ = bin_rim_m(tray)
    assert tray.half_size[0] - thickness >= ball.half_size[0]
    assert tray.half_size[1] - thickness >= ball.half_size[1]


def test_yaw_turns_about_the_vertical() -> None:
    task = load_task("lift-peg-upright", "panda")
    placement = draw_placements(task, generator(3))["peg"]
    position, quaternion = pose_of(task.objects["peg"], placement)
    np.testing.assert_allclose(position, [placement.x, placement.y, 0.025])
    assert 2 * np.arctan2(quaternion[3], quaternion[0]) == pytest.approx(placement.yaw_rad)
