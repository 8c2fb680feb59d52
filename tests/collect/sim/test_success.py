from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from blm.collect.sim.success import MEASURES, ObjectState, SceneState, evaluate_success
from blm.schemas.errors import ConfigError
from blm.schemas.task import Criterion, Measure, Task, load_task

UPRIGHT_PEG = np.array([np.cos(np.pi / 4), 0.0, -np.sin(np.pi / 4), 0.0])


def turned(axis: tuple[float, float, float], angle_rad: float) -> np.ndarray:
    return np.array([np.cos(angle_rad / 2), *(np.sin(angle_rad / 2) * np.array(axis))])


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    w, v, u, s = left[0], left[1:], right[1:], right[0]
    return np.array([w * s - v @ u, *(w * u + s * v + np.cross(v, u))])


def state(**objects: ObjectState) -> SceneState:
    return SceneState(objects=objects, goal=np.array([0.1, 0.0, 0.1]))


def at(x: float, y: float, z: float, quaternion: np.ndarray | None = None) -> ObjectState:
    return ObjectState(np.array([x, y, z]), np.array([1.0, 0, 0, 0]) if quaternion is None else quaternion)


def task_with(criterion: Criterion) -> Task:
    base = load_task("stack-cube", "panda")
    goal = load_task("pick-cube", "panda").goal
    peg = load_task("lift-peg-upright", "panda").objects["peg"]
    objects = {**base.objects, "peg": peg}
    return base.model_copy(update={"success": {"it": criterion}, "goal": goal, "objects": objects})


HELD = Criterion(measure="gripper_contacts", object="cube", at_most=0.0)

CASES: list[tuple[Criterion, SceneState, SceneState, float]] = [
    (
        Criterion(measure="object_to_goal_distance_m", object="cube", at_most=0.02),
        state(cube=at(0.1, 0.0, 0.085)),
        state(cube=at(0.1, 0.015, 0.085)),
        0.015,
    ),
    (
        Criterion(measure="object_to_goal_xy_distance_m", object="cube", at_most=0.02),
        state(cube=at(0.1, 0.019, 0.0)),
        state(cube=at(0.1, 0.021, 0.1)),
        0.019,
    ),
    (
        Criterion(measure="object_height_m", object="cube", at_most=0.025),
        state(cube=at(0.0, 0.0, 0.02)),
        state(cube=at(0.0, 0.0, 0.03)),
        0.02,
    ),
    (
        Criterion(measure="object_height_error_m", object="cube", expected=0.12, at_most=0.005),
        state(cube=at(0.0, 0.0, 0.116)),
        state(cube=at(0.0, 0.0, 0.126)),
        0.004,
    ),
    (
        Criterion(measure="object_tilt_rad", object="peg", at_most=0.08),
        state(
            peg=at(0, 0, 0.1, product(turned((0, 0, 1), 1.2), product(turned((0, 1, 0), 0.05), UPRIGHT_PEG)))
        ),
        state(peg=at(0, 0, 0.1, product(turned((0, 1, 0), 0.1), UPRIGHT_PEG))),
        0.05,
    ),
    (
        Criterion(measure="object_tilt_rad", object="cube", at_most=0.08),
        state(cube=at(0, 0, 0.1, turned((1, 0, 0), 0.07))),
        state(cube=at(0, 0, 0.1, turned((1, 0, 0), 0.09))),
        0.07,
    ),
    (
        Criterion(measure="object_speed_m_s", object="cube", at_most=0.01),
        state(cube=replace(at(0, 0, 0), velocity=np.array([0.003, 0.0, 0.004]))),
        state(cube=replace(at(0, 0, 0), velocity=np.array([0.03, 0.0, 0.04]))),
        0.005,
    ),
    (
        Criterion(measure="object_angular_speed_rad_s", object="cube", at_most=0.5),
        state(cube=replace(at(0, 0, 0), angular_velocity=np.array([0.0, 0.3, 0.0]))),
        state(cube=replace(at(0, 0, 0), angular_velocity=np.array([0.0, 0.0, -0.6]))),
        0.3,
    ),
    (
        Criterion(measure="objects_xy_distance_m", object="cube", target="base", at_most=0.03),
        state(cube=at(0.03, 0.04, 0.5), base=at(0.03, 0.02, 0.0)),
        state(cube=at(0.03, 0.04, 0.0), base=at(0.03, 0.0, 0.0)),
        0.02,
    ),
    (
        Criterion(
            measure="objects_height_difference_error_m",
            object="cube",
            target="base",
            expected=0.04,
            at_most=0.005,
        ),
        state(cube=at(0, 0, 0.063), base=at(0, 0, 0.02)),
        state(cube=at(0, 0, 0.02), base=at(0, 0, 0.06)),
        0.003,
    ),
    (
        Criterion(measure="arm_joint_speed_rad_s", at_most=0.2),
        SceneState(objects={}, arm_joint_velocities=np.array([0.1, -0.15, 0.0])),
        SceneState(objects={}, arm_joint_velocities=np.array([0.1, -0.25, 0.0])),
        0.15,
    ),
    (HELD, state(cube=at(0, 0, 0)), state(cube=replace(at(0, 0, 0), gripper_contacts=2)), 0.0),
]


@pytest.mark.parametrize(
    ("criterion", "good", "bad", "value"), CASES, ids=lambda c: getattr(c, "measure", "")
)
def test_measure_holds_and_fails(
    criterion: Criterion, good: SceneState, bad: SceneState, value: float
) -> None:
    task = task_with(criterion)
    measured, holds = evaluate_success(task, good)["it"]
    assert holds
    assert measured == pytest.approx(value, abs=1e-9)
    assert not evaluate_success(task, bad)["it"][1]


def test_every_measure_has_a_function_and_a_case() -> None:
    assert set(MEASURES) == set(get_args(Measure)) == {case[0].measure for case in CASES}


def test_an_upright_peg_counts_at_every_yaw_and_either_end_up() -> None:
    task = task_with(Criterion(measure="object_tilt_rad", object="peg", at_most=0.08))
    for end_up in (UPRIGHT_PEG, product(turned((1, 0, 0), np.pi), UPRIGHT_PEG)):
        for yaw in np.linspace(-np.pi, np.pi, 17):
            peg = at(0, 0, 0.12, product(turned((0, 0, 1), yaw), end_up))
            assert evaluate_success(task, state(peg=peg))["it"][1]


def test_a_lying_peg_is_tilted_a_right_angle() -> None:
    task = task_with(Criterion(measure="object_tilt_rad", object="peg", at_most=0.08))
    value, holds = evaluate_success(task, state(peg=at(0, 0, 0.025, turned((0, 0, 1), 0.3))))["it"]
    assert (value, holds) == (pytest.approx(np.pi / 2), False)


@pytest.mark.parametrize(
    ("criterion", "missing"),
    [
        (Criterion(measure="object_height_m", at_most=1.0), "'object'"),
        (Criterion(measure="objects_xy_distance_m", object="cube", at_most=1.0), "'target'"),
    ],
)
def test_a_criterion_without_its_object_says_which_key_is_missing(criterion: Criterion, missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        evaluate_success(task_with(criterion), state(cube=at(0, 0, 0)))


def test_a_goal_measure_without_a_goal_is_an_error() -> None:
    task = task_with(Criterion(measure="object_to_goal_distance_m", object="cube", at_most=1.0))
    with pytest.raises(ConfigError, match="goal"):
        evaluate_success(task, SceneState(objects={"cube": at(0, 0, 0)}))
