"""Small synthetic datasets in exactly the form blm records, made without a simulator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blm import __version__
from blm.collect.attempts_table import Attempt
from blm.collect.dataset_writer import DatasetWriter
from blm.collect.recording import Recording
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.episode import OBJECT_SLOTS, POSE_NAMES, EpisodeMetadata
from blm.schemas.rollout import Observation, Step
from blm.schemas.task import Task, load_task

SUBTASKS = ("approach", "push", "retreat")


def make_dataset(
    root: Path,
    *,
    embodiment: str = "so100",
    task: str | Sequence[str] = "push-cube",
    episodes: int = 3,
    frames: int | Sequence[int] = 20,
    image_size: int = 64,
    seed: int = 0,
    success: bool | Sequence[bool] = True,
    operator: str = "planner",
    rate_hz: float | None = None,
) -> Path:
    """Write a dataset to `root` and return it.

    Arms move along smooth random curves within their limits (axis units); images show a square in the object's
    colour that moves over a shaded background; the square's place is also in `observation.environment_state`.
    `task`, `frames` and `success` may be one value or one per episode; `rate_hz` is the robot's own by default. The
    same arguments give the same bytes.
    """
    robot = load_embodiment(embodiment).with_image_size(image_size, image_size)
    robot = robot.model_copy(update={"control_rate_hz": rate_hz or robot.control_rate_hz})
    with DatasetWriter.create(Path(root), Recording(robot)) as writer:
        for index in range(episodes):
            loaded = load_task(_nth(task, index), embodiment)
            succeeds, length = _nth(success, index), _nth(frames, index)
            generator = np.random.default_rng([seed, index])
            episode = writer.begin_episode()
            for step in synthetic_steps(robot, loaded, length, generator, succeeds):
                episode.add(step)
            instruction = loaded.instructions[(seed + index) % len(loaded.instructions)]
            metadata = _metadata(robot, loaded, instruction, seed + index, operator, succeeds)
            reason = "success" if succeeds else "time limit"
            attempt = Attempt(index, seed + index, loaded.name, succeeds, True, index, length, reason)
            writer.commit(episode.finish(), metadata, attempt)
    return Path(root)


def as_of_version_1(build: Path) -> None:
    """Make the manifest of a finished build say what older ones say."""
    manifest = build / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"manifest_version": 1}))


def synthetic_steps(
    robot: Embodiment, task: Task, frames: int, generator: np.random.Generator, success: bool = True
) -> list[Step]:
    """The control ticks of one made-up episode; the last quarter has `success` where asked for."""
    action = _smooth_curves(robot, frames, generator)
    state = np.concatenate([action[:1], action[:-1]])
    start, travel = generator.uniform(-0.05, 0.05, size=2), generator.uniform(0.05, 0.09)
    shade = generator.integers(60, 140)
    colour = np.array(next(iter(task.objects.values())).colour[:3]) * 255
    steps = []
    for index in range(frames):
        place = start + np.array([travel * index / max(1, frames - 1), 0.0])
        images = {
            camera.name: _picture(camera.width, place * (1 + number / 2), colour, int(shade) + 20 * number)
            for number, camera in enumerate(robot.cameras)
        }
        observation = Observation(
            state=state[index],
            images=images,
            ee_pose=np.array([0.2 + place[0], place[1], 0.05, 0.0, 1.0, 0.0, 0.0], dtype=np.float32),
            time_s=index / robot.control_rate_hz,
            instruction=task.instructions[0],
            environment_state=_environment_state(place, start, travel, len(task.objects)),
            gripper_contact=np.zeros(OBJECT_SLOTS + 1, dtype=np.float32),
        )
        done = success and index >= frames - max(1, frames // 4)
        subtask = SUBTASKS[min(len(SUBTASKS) - 1, index * len(SUBTASKS) // frames)]
        steps.append(Step(index, observation, action[index], subtask, done))
    return steps


def _smooth_curves(robot: Embodiment, frames: int, generator: np.random.Generator) -> np.ndarray:
    """(frames, A) float32: sums of three slow sines about the home pose, within the axis limits."""
    time = (np.arange(frames) / robot.control_rate_hz)[:, None, None]
    frequency = generator.uniform(0.05, 0.4, size=(1, 3, len(robot.axes)))
    phase = generator.uniform(0, 2 * np.pi, size=(1, 3, len(robot.axes)))
    span = (robot.column("upper") - robot.column("lower")) / 12
    curves = robot.column("home") + span * np.sin(2 * np.pi * frequency * time + phase).sum(axis=1)
    return robot.clip(curves).astype(np.float32)


def _picture(size: int, place: np.ndarray, colour: np.ndarray, shade: int) -> np.ndarray:
    """(size, size, 3) uint8: a vertical gradient with a square at `place` (metres, ±0.15 is the whole image)."""
    image = np.repeat(np.linspace(shade, shade + 60, size)[:, None, None], size, axis=1).repeat(3, axis=2)
    row, column = ((0.5 - place / 0.3) * size).astype(int)
    half = max(2, size // 12)
    rows = slice(max(0, row - half), max(0, row + half))
    image[rows, max(0, column - half) : max(0, column + half)] = colour
    return image.astype(np.uint8)


def _environment_state(place: np.ndarray, start: np.ndarray, travel: float, objects: int) -> np.ndarray:
    poses = np.zeros((OBJECT_SLOTS, len(POSE_NAMES)))
    for slot in range(min(objects, OBJECT_SLOTS)):
        poses[slot] = [0.2 + place[0] + 0.05 * slot, place[1], 0.02, 1.0, 0.0, 0.0, 0.0]
    goal = [0.2 + start[0] + travel, start[1], 0.0]
    return np.concatenate([poses.ravel(), goal]).astype(np.float32)


def _metadata(
    robot: Embodiment, task: Task, instruction: str, seed: int, operator: str, success: bool
) -> EpisodeMetadata:
    objects = [
        {"name": name, "shape": thing.shape, "colour_name": thing.colour_name, "half_size": thing.half_size}
        for name, thing in task.objects.items()
    ]
    cameras = [
        {
            "name": camera.name,
            "width": camera.width,
            "height": camera.height,
            "vertical_fov_deg": camera.vertical_fov_deg,
            "position": camera.position or (0.0, 0.0, 0.0),
            "quaternion": (1.0, 0.0, 0.0, 0.0),
            "mount": camera.mount,
        }
        for camera in robot.cameras
    ]
    goal = (
        {"shape": task.goal.shape, "position": (0.3, 0.0, 0.0), "radius_m": task.goal.radius_m}
        if task.goal
        else None
    )
    return EpisodeMetadata(
        embodiment=robot.name,
        task=task.name,
        instruction=instruction,
        seed=seed,
        operator=operator,
        success=success,
        attempts=1,
        late_ticks=0,
        repeated_frames=0,
        jitter_ms=0.0,
        objects=json.dumps(objects),
        cameras=json.dumps(cameras),
        goal=json.dumps(goal),
        software=__version__,
    )


def _nth[Value](given: Value | Sequence[Value], index: int) -> Value:
    if isinstance(given, Sequence) and not isinstance(given, str):
        return given[index]
    return given  # type: ignore[return-value]
