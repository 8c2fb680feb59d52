"""The fixed vocabulary of findings: what can be wrong with an episode, how grave that is, and what to do about it.

A finding of severity `drop` keeps the episode out of a build; `warn` is told and changes nothing; `off` is not looked
for. What says that data are broken drops by default; what only says that they are unusual warns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal["drop", "warn", "off"]

Reason = Literal[
    "unreadable_data",
    "wrong_length",
    "missing_video",
    "unreadable_video",
    "not_finite",
    "non_monotonic_time",
    "constant_axis",
    "duplicate",
    "not_successful",
    "idle_episode",
    "too_short",
    "too_long",
    "empty_instruction",
    "overlong_instruction",
    "mismatched_instruction",
    "several_instructions",
    "instruction_variant",
    "unusually_short",
    "mostly_idle",
    "action_jump",
    "state_jump",
    "over_velocity",
    "over_jerk",
    "saturated_axis",
    "late_state",
    "early_state",
    "time_gap",
    "idle_gripper",
    "near_duplicate",
    "black_frames",
    "frozen_frames",
    "blurred_frames",
]

ALWAYS_DROPPED: tuple[Reason, ...] = ("unreadable_data", "missing_video", "unreadable_video")
"""There is nothing to keep, whatever a configuration says."""

REASONS: tuple[Reason, ...] = get_args(Reason)
"""Every reason there is, in the order in which an episode is judged."""


@dataclass(frozen=True)
class Rule:
    """When a measured value is a finding: it lies `below` or `above` the threshold, both in `unit`."""

    severity: Severity
    fails: Literal["below", "above"]
    threshold: float
    unit: str
    meaning: str
    remedy: str


_RECORD_AGAIN = "Restore the files from a copy, or record the episode again."
_TELEOPERATION = "Look at the episode; a smoother operator, a higher rate or a filter mends new recordings."
_CAMERA = "Look at the camera: cable, exposure, focus, lens cap. Leave the camera out with `cameras` if it is no use."

RULES: dict[Reason, Rule] = {
    "unreadable_data": Rule("drop", "above", 0, "files", "its data file cannot be read", _RECORD_AGAIN),
    "wrong_length": Rule(
        "drop", "above", 0, "frames", "rows or video frames differ from the length announced", _RECORD_AGAIN
    ),
    "missing_video": Rule("drop", "above", 0, "cameras", "a camera's video file is not there", _RECORD_AGAIN),
    "unreadable_video": Rule("drop", "above", 0, "videos", "a video cannot be decoded", _RECORD_AGAIN),
    "not_finite": Rule(
        "drop", "above", 0, "values", "states or actions hold NaN or infinity", "Find the driver's fault."
    ),
    "non_monotonic_time": Rule(
        "drop", "above", 0, "frames", "time stands still or runs backwards", "Record with a monotonic clock."
    ),
    "constant_axis": Rule(
        "drop",
        "above",
        0,
        "axes",
        "a state or an action stays exactly the same while its counterpart moves",
        "An encoder or a column is dead: check the wiring and the names of the axes.",
    ),
    "duplicate": Rule(
        "drop", "above", 0, "episodes", "the same states and actions come earlier", "Nothing: one copy stays."
    ),
    "not_successful": Rule(
        "drop",
        "above",
        0,
        "episodes",
        "it is recorded as failed",
        "Set `checks: {not_successful: off}` to keep it.",
    ),
    "idle_episode": Rule(
        "drop", "below", 0.02, "axis ranges/s", "nothing moves", "Record again; the arm was not driven."
    ),
    "too_short": Rule("drop", "below", 0.5, "s", "too little is left after trimming", "Record again."),
    "too_long": Rule(
        "drop",
        "above",
        4.0,
        "× median",
        "it takes many times as long as others of its robot and task",
        "Look at it: was the recording stopped late? Cut it, or raise the threshold.",
    ),
    "empty_instruction": Rule(
        "drop", "above", 0, "texts", "it has no instruction", "Write the task's text into meta/tasks.parquet."
    ),
    "overlong_instruction": Rule(
        "drop", "above", 2000, "characters", "its instruction is no instruction", "Correct the task's text."
    ),
    "mismatched_instruction": Rule(
        "drop",
        "above",
        0,
        "contradictions",
        "the instruction names another task, or an object that is not in the scene",
        "Correct the instruction or the task name.",
    ),
    "several_instructions": Rule(
        "warn",
        "above",
        1,
        "instructions",
        "its frames carry different instructions; the first one is used",
        "Cut the episode where the instruction changes.",
    ),
    "instruction_variant": Rule(
        "warn",
        "above",
        0,
        "spellings",
        "the instruction differs from a more frequent one in spaces, case or full stop only",
        "Nothing: both become one text.",
    ),
    "unusually_short": Rule(
        "warn",
        "below",
        0.25,
        "× median",
        "it takes a fraction of the time of others of its robot and task",
        "Look at it: was the recording cut off?",
    ),
    "mostly_idle": Rule(
        "warn",
        "above",
        0.5,
        "of the frames",
        "the arm rests for much of the time between its first and its last motion",
        "Look at it; pauses teach a policy to pause.",
    ),
    "action_jump": Rule(
        "warn",
        "above",
        4.0,
        "× limit",
        "an arm axis' command jumps further within a frame than the axis can move",
        _TELEOPERATION,
    ),
    "state_jump": Rule(
        "warn",
        "above",
        4.0,
        "× limit",
        "an arm axis' measured position jumps further within a frame than the axis can move",
        "An encoder or the bus loses readings: check cables and the calibration.",
    ),
    "over_velocity": Rule(
        "warn",
        "above",
        1.5,
        "× limit",
        "an arm axis moves faster than the robot can",
        "Check the units and the names of the axes.",
    ),
    "over_jerk": Rule(
        "warn",
        "above",
        0.5,
        "of the frames",
        "commands are jerkier than the arm can follow for much of the time",
        _TELEOPERATION,
    ),
    "saturated_axis": Rule(
        "warn",
        "above",
        2.0,
        "s",
        "an arm axis is commanded to its limit for long",
        "Move the workspace or the base; a clipped command does not say what the operator wanted.",
    ),
    "late_state": Rule(
        "warn",
        "above",
        0.5,
        "s",
        "the arm follows its commands late",
        "Check the bus, the servo's gains and how frames are paired with commands.",
    ),
    "early_state": Rule(
        "warn",
        "below",
        0.0,
        "s",
        "the arm moves before it is told to: states and actions are paired wrongly",
        "Shift the actions; a policy trained on these learns to stand still.",
    ),
    "time_gap": Rule(
        "warn",
        "above",
        2.5,
        "periods",
        "there is a gap between two frames",
        "Free the computer while recording, or lower the rate.",
    ),
    "idle_gripper": Rule(
        "warn",
        "below",
        0.02,
        "of its range",
        "the gripper never moves though the task is done with it",
        "Look at it: was the gripper connected?",
    ),
    "near_duplicate": Rule(
        "warn",
        "below",
        0.002,
        "axis ranges",
        "it follows nearly the same path as another episode",
        "Nothing: such episodes always share a split.",
    ),
    "black_frames": Rule("drop", "above", 0.2, "of the frames", "a camera shows darkness", _CAMERA),
    "frozen_frames": Rule(
        "drop", "above", 0.5, "of the motion", "a camera's picture stands still while the arm moves", _CAMERA
    ),
    "blurred_frames": Rule(
        "warn", "above", 0.5, "of the frames", "a camera's pictures have hardly any edges", _CAMERA
    ),
}
"""The default rule of every reason."""
