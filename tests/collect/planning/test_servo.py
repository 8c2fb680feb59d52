"""The servo model: where it says the arm will be is where the simulated arm is."""

import numpy as np
import pytest

from blm.collect.planning.servo import KEEP_EVERY, SUBSTEPS, Servos
from tests.collect.planning.scenes import environment


@pytest.mark.parametrize(("robot", "within_rad"), [("so100", 0.03), ("panda", 0.03)])
def test_predicted_lag_matches_the_simulated_arm(robot, within_rad):
    world = environment(robot, "pick-cube")
    embodiment, arm = world.embodiment, list(world.embodiment.arm_indices)
    start = embodiment.to_model(world.reset(0).state.astype(float))
    phase = np.linspace(0.0, np.pi, 20)[:, None]
    commands = np.repeat(start[None], 20, axis=0)
    commands[:, arm] += 0.3 * (1 - np.cos(phase)) * np.where(np.arange(len(arm)) % 2, -0.5, 0.5)
    states = [world.step(embodiment.from_model(command)).observation.state for command in commands]
    measured = embodiment.to_model(np.array(states, dtype=float))
    predicted = Servos.of(world.model, embodiment).follow(commands, start, embodiment.control_rate_hz)
    at_tick_ends = predicted[SUBSTEPS - 1 :: SUBSTEPS]
    assert len(predicted) == len(commands) * SUBSTEPS // KEEP_EVERY
    lag = np.abs(commands - measured)[:, arm].max()
    error = np.abs(at_tick_ends - measured[KEEP_EVERY - 1 :: KEEP_EVERY])[:, arm].max()
    assert error < within_rad
    assert error < 0.5 * lag


def test_a_still_target_is_reached_without_overshoot():
    servos = Servos(stiffness=np.array([400.0]), damping=np.array([40.0]))
    places = servos.follow(np.ones((40, 1)), np.zeros(1), 20.0)
    assert np.all(places <= 1.0 + 1e-9)
    assert places[-1, 0] == pytest.approx(1.0, abs=1e-3)
