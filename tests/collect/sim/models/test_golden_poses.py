"""Kinematics do not drift: poses recorded when our models had been checked against their makers'."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blm.collect.sim.models import MODEL_NAMES
from tests.collect.sim.models.golden_poses import CONFIGURATIONS, PATH, measured


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_poses_are_the_recorded_ones(name: str) -> None:
    golden = json.loads(PATH.read_text())[name]
    assert len(golden) == CONFIGURATIONS
    for record in golden:
        poses = measured(name, record["joints"])
        for key, value in poses.items():
            expected = np.array(record[key])
            if key.endswith("quaternion") and expected @ np.array(value) < 0:
                expected = -expected
            assert value == pytest.approx(expected, abs=1e-6), (key, record["joints"])
