"""Plant one defect in one episode of a clean dataset, the way each is found in the wild."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from blm.schemas.embodiment import load_embodiment
from blm.schemas.episode import ACTION, MONOTONIC_TIME, STATE
from tests.curate.episodes.editing import data_file, edit_rows, video_file
from tests.factories import make_dataset

EPISODES = 6
FRAMES = 60
EPISODE = 4
"""The one that is spoilt."""

RATE_HZ = 20
PAN = 0
ROBOT = load_embodiment("so100")
FRAME_LIMIT_DEG = np.rad2deg(ROBOT.axes[PAN].max_velocity) / RATE_HZ
"""How far the pan axis can move within a frame."""

Plant = Callable[[Path], None]


def clean_dataset(root: Path, frames: int | list[int] = FRAMES) -> Path:
    return make_dataset(root, episodes=EPISODES, frames=frames, image_size=64, seed=7)


def motion(root: Path, episode: int = EPISODE) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(data_file(root, episode))
    return np.stack(table[STATE].to_pylist()), np.stack(table[ACTION].to_pylist())


def set_motion(root: Path, state: np.ndarray, action: np.ndarray, episode: int = EPISODE) -> None:
    def change(table: pa.Table) -> pa.Table:
        for name, values in ((STATE, state), (ACTION, action)):
            flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            table = table.set_column(table.column_names.index(name), name, column)
        return table

    edit_rows(data_file(root, episode), change)


def followed(action: np.ndarray, frames: int = 1) -> np.ndarray:
    """Where an arm is that follows its commands some frames later, or earlier."""
    later = np.clip(np.arange(len(action)) - frames, 0, len(action) - 1)
    return action[later]


def set_metadata(root: Path, column: str, value: object) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        numbers = table["episode_index"].to_pylist()
        if EPISODE in numbers:
            values[numbers.index(EPISODE)] = value
        place = table.column_names.index(column)
        return table.set_column(place, table.field(column), pa.array(values, table.field(column).type))

    for path in root.glob("meta/episodes/*/*.parquet"):
        edit_rows(path, change)


def set_pictures(root: Path, change: Callable[[np.ndarray], np.ndarray], camera: str = "top") -> None:
    """Replace the (T, H, W, 3) pictures of one camera."""
    path = video_file(root, EPISODE, camera)
    pictures = _pictures(path)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ, options={"crf": "18", "g": "2", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = pictures.shape[1], pictures.shape[2], "yuv420p"
        for index, picture in enumerate(change(pictures)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _pictures(path: Path) -> np.ndarray:
    container = av.open(str(path))
    pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    container.close()
    return pictures


def _cut_data(root: Path) -> None:
    path = data_file(root, EPISODE)
    path.write_bytes(path.read_bytes()[:-200])


def _lose_rows(root: Path) -> None:
    edit_rows(data_file(root, EPISODE), lambda table: table.slice(0, len(table) - 3))


def _break_video(root: Path) -> None:
    video_file(root, EPISODE).write_bytes(b"not a video" * 100)


def _cut_video(root: Path) -> None:
    set_pictures(root, lambda pictures: pictures[:-10])


def _lose_number(root: Path) -> None:
    state, action = motion(root)
    action[7, 2] = np.nan
    set_motion(root, state, action)


def _turn_time_back(root: Path) -> None:
    _change_time(root, lambda time: np.where(np.arange(len(time)) == 9, time - 0.05, time))


def _lose_time(root: Path) -> None:
    _change_time(root, lambda time: np.where(np.arange(len(time)) >= 9, time + 0.3, time))


def _change_time(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    def edited(table: pa.Table) -> pa.Table:
        time = pa.array(change(table[MONOTONIC_TIME].to_numpy()))
        return table.set_column(table.column_names.index(MONOTONIC_TIME), MONOTONIC_TIME, time)

    edit_rows(data_file(root, EPISODE), edited)


def _kill_encoder(root: Path) -> None:
    state, action = motion(root)
    action[:, PAN] = 50 * np.sin(np.arange(len(action)) / 10)
    state[:, PAN] = 12.5
    set_motion(root, state, action)


def _copy_motion(root: Path) -> None:
    set_motion(root, *motion(root, 1))


def _record_again(root: Path) -> None:
    """The same path, begun 0.3 s later and seen through a noisy encoder."""
    state, action = motion(root, 1)
    noise = np.random.default_rng(0).normal(0, 0.1, state.shape)
    set_motion(root, followed(state, 6) + noise, followed(action, 6))


def _stand_still(root: Path) -> None:
    state, action = motion(root)
    set_motion(root, np.repeat(state[:1], len(state), 0), np.repeat(action[:1], len(action), 0))


def _pause(root: Path) -> None:
    action = motion(root)[1]
    place = np.interp(np.arange(len(action)), [0, 8, 50, len(action) - 1], [0, 8, 8, 17])
    home = ROBOT.column("home")
    action = home + 0.4 * (action[place.astype(int)] - home)
    set_motion(root, followed(action), action)


def _jump_in_action(root: Path) -> None:
    state, action = motion(root)
    action[:, PAN] *= 0.2
    action[30, PAN] += 5 * FRAME_LIMIT_DEG
    state[:, PAN] = followed(motion(root)[1][:, PAN] * 0.2)
    set_motion(root, state, action)


def _jump_in_state(root: Path) -> None:
    state, action = motion(root)
    action[:, PAN] *= 0.2
    state[:, PAN] *= 0.2
    state[30, PAN] += 5 * FRAME_LIMIT_DEG
    set_motion(root, state, action)


def _race(root: Path) -> None:
    action = motion(root)[1]
    triangle = np.abs((np.arange(len(action)) * 2 * FRAME_LIMIT_DEG + 80) % 320 - 160) - 80
    action[:, PAN] = triangle
    set_motion(root, followed(action), action)


def _tremble(root: Path) -> None:
    state, action = motion(root)
    action[:, PAN] += 1.5 * (-1.0) ** np.arange(len(action))
    set_motion(root, state, action)


def _press_against_limit(root: Path) -> None:
    action = motion(root)[1]
    upper = ROBOT.axes[PAN].upper
    action[:, PAN] = np.minimum(upper, np.linspace(0, 3.6 * upper, len(action)))
    set_motion(root, followed(action), action)


def _lag(root: Path) -> None:
    action = motion(root)[1]
    set_motion(root, followed(action, 14), action)


def _lead(root: Path) -> None:
    action = motion(root)[1]
    set_motion(root, followed(action, -3), action)


def _unplug_gripper(root: Path) -> None:
    state, action = motion(root)
    state[:, -1] = action[:, -1] = 20.0
    set_motion(root, state, action)


def _blurred(pictures: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(7))) for one in pictures]
    )


def _instruction(root: Path) -> str:
    table = pa.concat_tables([pq.read_table(path) for path in sorted(root.glob("meta/episodes/*/*.parquet"))])
    return dict(zip(table["episode_index"].to_pylist(), table["tasks"].to_pylist(), strict=True))[EPISODE][0]


PLANTS: dict[str, Plant] = {
    "unreadable_data": _cut_data,
    "wrong_length": _lose_rows,
    "missing_video": lambda root: video_file(root, EPISODE).unlink(),
    "unreadable_video": _break_video,
    "unreadable_video (too short)": _cut_video,
    "not_finite": _lose_number,
    "non_monotonic_time": _turn_time_back,
    "constant_axis": _kill_encoder,
    "duplicate": _copy_motion,
    "not_successful": lambda root: set_metadata(root, "blm/success", False),
    "idle_episode": _stand_still,
    "empty_instruction": lambda root: set_metadata(root, "tasks", [" "]),
    "overlong_instruction": lambda root: set_metadata(root, "tasks", ["and push " * 300]),
    "mismatched_instruction": lambda root: set_metadata(
        root, "tasks", ["lift the red cube to the green marker"]
    ),
    "several_instructions": lambda root: set_metadata(root, "tasks", [_instruction(root), "then wait"]),
    "instruction_variant": lambda root: set_metadata(root, "tasks", [f" {_instruction(root).title()}."]),
    "mostly_idle": _pause,
    "action_jump": _jump_in_action,
    "state_jump": _jump_in_state,
    "over_velocity": _race,
    "over_jerk": _tremble,
    "saturated_axis": _press_against_limit,
    "late_state": _lag,
    "early_state": _lead,
    "time_gap": _lose_time,
    "idle_gripper": _unplug_gripper,
    "near_duplicate": _record_again,
    "black_frames": lambda root: set_pictures(root, lambda pictures: pictures // 20),
    "frozen_frames": lambda root: set_pictures(
        root, lambda pictures: np.repeat(pictures[:1], len(pictures), 0)
    ),
    "blurred_frames": lambda root: set_pictures(root, _blurred),
}
"""By the reason that is to be found, and a word where there are several ways to it."""

LENGTHS = {
    "too_short": (9, {"unusually_short", "idle_gripper"}),
    "too_long": (260, {"saturated_axis"}),
    "unusually_short": (14, set()),
}
"""Frames of an episode of another length, and which further reasons that is."""


def planted(clean: Path, root: Path, defect: str) -> Path:
    """A copy of the dataset with the defect in `EPISODE`."""
    if defect in LENGTHS:
        frames = [FRAMES] * EPISODES
        frames[EPISODE] = LENGTHS[defect][0]
        return clean_dataset(root, frames)
    shutil.copytree(clean, root)
    PLANTS[defect](root)
    return root
