import mujoco
import numpy as np
import pytest

from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.flat_shadows import FlatShadows
from blm.collect.sim.render import CameraRenderer
from blm.collect.sim.variety import Variety
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import SimulationError
from blm.schemas.task import load_task

SIZE = 192


def scene(robot: str, task: str = "stack-cube", variety: Variety | None = None) -> SimulatedEnvironment:
    embodiment = load_embodiment(robot).with_image_size(SIZE, SIZE)
    environment = SimulatedEnvironment(
        embodiment, load_task(task, robot), render=False, variety=variety or Variety()
    )
    environment.reset(5)
    return environment


def pictures(environment: SimulatedEnvironment, kind: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    if kind == "map":
        monkeypatch.setattr(FlatShadows, "possible", staticmethod(lambda model, shown: False))
    renderer = CameraRenderer(environment.model, environment.embodiment.cameras, kind != "none")
    try:
        return renderer.images(environment.data)["top"].astype(int)
    except SimulationError as error:
        pytest.skip(f"no renderer: {error.message}")
    finally:
        renderer.close()
        monkeypatch.undo()


def table_points(environment: SimulatedEnvironment) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of the top camera: where its ray meets the table (m), and whether nothing is in between."""
    model, data = environment.model, environment.data
    camera = model.camera("top").id
    position, rotation = data.cam_xpos[camera], data.cam_xmat[camera].reshape(3, 3)
    half = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    offsets = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    right, down = np.meshgrid(offsets, offsets)
    rays = np.stack([right * half, -down * half, -np.ones_like(right)], axis=-1) @ rotation.T
    distance = -position[2] / rays[..., 2]
    points = position + distance[..., None] * rays
    hit = np.zeros((SIZE, SIZE), dtype=bool)
    for row, column in np.ndindex(SIZE, SIZE):
        hit[row, column] = blocked(environment, position, points[row, column] - position, 0.999)
    return points, ~hit


def blocked(environment: SimulatedEnvironment, start: np.ndarray, way: np.ndarray, share: float) -> bool:
    """Whether anything visible and opaque stands on the first `share` of a way."""
    groups = np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)
    geom = np.zeros(1, dtype=np.int32)
    away = start.copy()
    found = mujoco.mj_ray(environment.model, environment.data, away, way, groups, 1, -1, geom)
    return 0 <= found < share and environment.model.geom_rgba[geom[0], 3] > 0.99


@pytest.mark.parametrize(
    "variety", [Variety(), Variety(lighting=True, colours=True)], ids=["plain", "varied"]
)
def test_the_table_is_darker_exactly_where_the_light_does_not_reach(variety, monkeypatch):
    environment = scene("so100", variety=variety)
    flat, none = (pictures(environment, kind, monkeypatch) for kind in ("flat", "none"))
    points, clear = table_points(environment)
    light = environment.data.light_xdir[environment.model.light("key").id]
    sample = np.random.default_rng(0).permutation(np.flatnonzero(clear.ravel()))[:4000]
    shaded = np.array(
        [blocked(environment, points.reshape(-1, 3)[i] - 1e-3 * light, -light, 5.0) for i in sample]
    )
    darker = (none - flat).sum(axis=2).ravel()[sample] > 60
    assert shaded.sum() > 50
    assert np.mean(darker == shaded) > 0.985, "only the edges may differ"


def test_flat_shadows_look_as_those_of_a_shadow_map_do(monkeypatch):
    environment = scene("so100")
    flat, mapped, none = (pictures(environment, kind, monkeypatch) for kind in ("flat", "map", "none"))
    _, clear = table_points(environment)
    in_both = clear & ((none - flat).sum(axis=2) > 60) & ((none - mapped).sum(axis=2) > 60)
    in_one = clear & (((none - flat).sum(axis=2) > 60) ^ ((none - mapped).sum(axis=2) > 60))
    assert in_both.sum() > 3 * in_one.sum()
    assert np.abs(flat - mapped)[in_both].mean() < 6


def test_meshes_and_lamps_are_left_to_the_shadow_map():
    model = scene("so100").model
    shown = model.geom_group < 3
    assert FlatShadows.possible(model, shown)
    lamp = model.light("key").id
    model.light_type[lamp] = mujoco.mjtLightType.mjLIGHT_SPOT
    assert not FlatShadows.possible(model, shown)
    model.light_type[lamp] = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    model.geom_type[np.flatnonzero(shown)[0]] = mujoco.mjtGeom.mjGEOM_MESH
    assert not FlatShadows.possible(model, shown)
