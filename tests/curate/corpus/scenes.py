"""Recorded datasets with objects, tool and goal at random places, seen by a tilted camera."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from blm import __version__
from blm.collect.attempts_table import Attempt
from blm.collect.dataset_writer import DatasetWriter
from blm.collect.recording import Recording
from blm.schemas.embodiment import load_embodiment
from blm.schemas.episode import EpisodeMetadata
from blm.schemas.task import load_task
from tests.factories import synthetic_steps

# A camera 0.4 m up at x = 0.41 that looks back at the robot and down: tilted by 30° from straight down about its own
# x axis, after a quarter turn about the vertical. (w, x, y, z), worked out by hand: qz(90°) · qx(30°).
_C, _S = np.cos(np.pi / 12) * 0.5**0.5, np.sin(np.pi / 12) * 0.5**0.5
TILTED = {"position": [0.41, 0.0, 0.4], "quaternion": [_C, _S, _S, _C]}


def record_scenes(
    root: Path,
    *,
    task: str = "stack-cube",
    episodes: int = 4,
    frames: int = 24,
    failures: bool = True,
    distractors: Sequence[tuple[str, str]] = (),
) -> Path:
    """A dataset whose poses vary from frame to frame; every third episode fails where `failures` is set.

    `distractors` are (colour name, shape).
    """
    robot = load_embodiment("so100").with_image_size(64, 64)
    loaded = load_task(task, robot.name)
    cameras = [
        {"name": "top", "width": 64, "height": 64, "vertical_fov_deg": 50.0, "mount": None, **TILTED},
        {
            "name": "wrist",
            "width": 64,
            "height": 64,
            "vertical_fov_deg": 65.0,
            "mount": "wrist_camera",
            "position": [0.0, 0.0, 0.0],
            "quaternion": [1.0, 0.0, 0.0, 0.0],
        },
    ]
    objects = [
        {"name": name, "shape": one.shape, "colour_name": one.colour_name, "half_size": one.half_size}
        for name, one in loaded.objects.items()
    ]
    objects += [
        {"name": f"{c} {s}", "shape": s, "colour_name": c, "half_size": [0.02] * 3, "role": "distractor"}
        for c, s in distractors
    ]
    goal = loaded.goal and {"shape": loaded.goal.shape, "position": [0, 0, 0], "radius_m": 0.04}
    with DatasetWriter.create(root, Recording(robot)) as writer:
        for index in range(episodes):
            rng = np.random.default_rng([7, index])
            success = not (failures and index % 3 == 2)
            episode = writer.begin_episode()
            for step in synthetic_steps(robot, loaded, frames, rng, success):
                low, high = [0.1, -0.12, 0.0], [0.3, 0.12, 0.1]
                state = np.zeros_like(step.observation.environment_state)
                for slot in range(len(objects)):
                    turn = rng.uniform(0, np.pi)
                    pose = [*rng.uniform(low, high), np.cos(turn / 2), 0, 0, np.sin(turn / 2)]
                    state[7 * slot : 7 * slot + 7] = pose
                state[-3:] = rng.uniform(low, high) if goal else 0.0
                tool = np.array([*rng.uniform(low, high), 0, 1, 0, 0], np.float32)
                seen = replace(step.observation, environment_state=state, ee_pose=tool)
                episode.add(replace(step, observation=seen))
            metadata = EpisodeMetadata(
                embodiment=robot.name,
                task=task,
                instruction=loaded.instructions[index % len(loaded.instructions)],
                seed=index,
                operator="planner",
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
            writer.commit(
                episode.finish(), metadata, Attempt(index, index, task, success, True, index, frames, "")
            )
    return root
