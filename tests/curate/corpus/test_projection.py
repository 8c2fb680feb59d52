import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.corpus.projection import PinholeCamera, read_cameras, rotation_matrix

DOWN = PinholeCamera("top", 200, 100, 90.0, (0.2, 0.0, 0.5), (1.0, 0.0, 0.0, 0.0))
"""Looks straight down, image right = +x, image up = +y; focal length 100 / 2 / tan(45°) = 50 pixels."""


def test_a_case_worked_out_by_hand():
    # 0.1 m right of and 0.05 m above the axis, at a depth of 0.5 m: 50 · 0.1 / 0.5 = 10 and 50 · 0.05 / 0.5 = 5 pixels.
    assert DOWN.focal_px == pytest.approx(50.0)
    assert DOWN.project(np.array([0.3, 0.05, 0.0])) == pytest.approx([110.0, 45.0])
    assert DOWN.thousandths(np.array([0.3, 0.05, 0.0])) == (550, 450)


def test_a_turned_camera_worked_out_by_hand():
    # Turned by 90° about +x (w = x = √½), −z becomes +y: it looks along +y, image up = +z, image right = +x.
    camera = PinholeCamera("side", 200, 100, 90.0, (0.0, -1.0, 0.0), (0.5**0.5, 0.5**0.5, 0.0, 0.0))
    assert camera.project(np.array([0.2, 0.0, 0.4])) == pytest.approx([110.0, 30.0])


def test_points_behind_the_camera_and_outside_of_the_image_have_no_place():
    assert np.isnan(DOWN.project(np.array([0.2, 0.0, 0.6]))).all()
    assert DOWN.thousandths(np.array([0.2, 0.0, 0.6])) is None
    assert DOWN.thousandths(np.array([0.2, 0.6, 0.0])) is None


quaternions = (
    st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1).map(lambda q: tuple(q))
)


@given(
    quaternions, st.tuples(*[st.floats(-2, 2)] * 3), st.floats(0, 640), st.floats(0, 480), st.floats(0.05, 5)
)
def test_projecting_undoes_unprojecting(quaternion, position, u, v, depth):
    camera = PinholeCamera("c", 640, 480, 55.0, position, quaternion)
    point = camera.unproject(np.array([u, v]), depth)
    assert camera.project(point) == pytest.approx([u, v], abs=1e-6)


@given(quaternions)
def test_rotations_are_rotations(quaternion):
    rotation = rotation_matrix(quaternion)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        "[3]",
        '[{"name": "top"}]',
        '[{"name": "top", "width": 1, "height": 1, "vertical_fov_deg": 1,'
        ' "position": [0, 0], "quaternion": [1, 0, 0, 0]}]',
    ],
)
def test_garbled_descriptions_are_value_errors(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own message, or ours
        read_cameras(text)


def test_descriptions_round_trip():
    row = {
        "name": "top",
        "width": 200,
        "height": 100,
        "vertical_fov_deg": 90,
        "position": [0.2, 0, 0.5],
        "quaternion": [1, 0, 0, 0],
        "mount": None,
    }
    assert read_cameras(json.dumps([row])) == {"top": DOWN}
