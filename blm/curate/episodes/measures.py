"""What each check measures: one small function per reason, giving SQL over the table of episodes.

Expressions see the columns of `DatasetIndex.episodes`, `start` and `stop` of the trimmed episode, `kept_s`, and
`reason`, which is null for episodes still in. A value that is null is no finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blm.curate.episodes.reasons import Reason

_USUAL = "over (partition by embodiment, task)"
_MANIPULATES = "pick|grasp|grab|lift|stack|place|take|put"
"""Tasks named like this are done with the gripper, whatever the other episodes show."""

_MOVES_GRIPPER = 0.1


@dataclass(frozen=True)
class Measure:
    """The SQL expression of a value, and of words where a number does not say it."""

    value: str
    note: str = "''"


def unreadable_data_files() -> Measure:
    return Measure("(unreadable is not null)::int", "unreadable")


def wrong_length_frames() -> Measure:
    """Rows or video frames differ in number from what the metadata say, or rows are missing in between."""
    differs = "greatest(abs(rows - length), abs(video_frames - length), (not contiguous)::int)"
    return Measure(
        differs, "format('{} frames announced, {} rows, {} video frames', length, rows, video_frames)"
    )


def missing_video_cameras() -> Measure:
    return Measure("len(missing_videos)", "array_to_string(missing_videos, ', ')")


def not_finite_values() -> Measure:
    return Measure("(not finite)::int")


def backward_time_frames() -> Measure:
    return Measure("backward_steps")


def constant_axes() -> Measure:
    return Measure("constant_axes")


def duplicate_episodes() -> Measure:
    """Episodes with the same states and actions that come earlier (by dataset name and number) and are still in."""
    earlier = """count(*) filter (reason is null) over (
        partition by identity order by dataset, episode rows between unbounded preceding and 1 preceding)"""
    return Measure(earlier)


def failed_episodes() -> Measure:
    """It is recorded as failed; an unknown outcome passes."""
    return Measure("(success = 'no')::int")


def top_speed_ranges_s() -> Measure:
    return Measure("top_speed")


def kept_duration_s() -> Measure:
    return Measure("case when top_speed > 0 then kept_s end")


def duration_of_median() -> Measure:
    return Measure(f"kept_s / nullif(median(kept_s) filter (reason is null) {_USUAL}, 0)")


def empty_instructions() -> Measure:
    return Measure("(instruction = '')::int")


def instruction_characters() -> Measure:
    """As recorded; the index cuts longer ones just above the limit."""
    return Measure("length(recorded_instruction)")


def mismatched_instructions() -> Measure:
    return Measure("len(contradictions)", "array_to_string(contradictions, '; ')")


def instructions_in_one_episode() -> Measure:
    return Measure("instructions", "instruction")


def spelling_variants() -> Measure:
    """Whether another spelling of the same text is more frequent."""
    usual = "mode(recorded_instruction) over (partition by instruction)"
    return Measure(f"(recorded_instruction <> {usual})::int", "recorded_instruction")


def idle_fraction() -> Measure:
    return Measure("idle_fraction")


def action_jump_limits() -> Measure:
    return Measure("action_jump")


def state_jump_limits() -> Measure:
    return Measure("state_jump")


def velocity_limits() -> Measure:
    return Measure("velocity_ratio")


def jerky_fraction() -> Measure:
    return Measure("jerky_fraction")


def saturated_s() -> Measure:
    return Measure("case when moves_from is not null then saturated_s end")


def state_lag_s() -> Measure:
    return Measure("lag_s")


def time_gap_periods() -> Measure:
    return Measure("longest_gap_periods")


def gripper_range_fraction() -> Measure:
    """Null where nothing moves, or the task is done without the gripper, as its name or the other episodes show."""
    used = f"""regexp_matches(task || ' ' || instruction, '\\b({_MANIPULATES})\\b')
        or median(gripper_range) {_USUAL} > {_MOVES_GRIPPER}"""
    return Measure(f"case when moves_from is not null and ({used}) then gripper_range end")


MEASURES: Mapping[Reason, Measure] = {
    "unreadable_data": unreadable_data_files(),
    "wrong_length": wrong_length_frames(),
    "missing_video": missing_video_cameras(),
    "not_finite": not_finite_values(),
    "non_monotonic_time": backward_time_frames(),
    "constant_axis": constant_axes(),
    "duplicate": duplicate_episodes(),
    "not_successful": failed_episodes(),
    "idle_episode": top_speed_ranges_s(),
    "too_short": kept_duration_s(),
    "too_long": duration_of_median(),
    "empty_instruction": empty_instructions(),
    "overlong_instruction": instruction_characters(),
    "mismatched_instruction": mismatched_instructions(),
    "several_instructions": instructions_in_one_episode(),
    "instruction_variant": spelling_variants(),
    "unusually_short": duration_of_median(),
    "mostly_idle": idle_fraction(),
    "action_jump": action_jump_limits(),
    "state_jump": state_jump_limits(),
    "over_velocity": velocity_limits(),
    "over_jerk": jerky_fraction(),
    "saturated_axis": saturated_s(),
    "late_state": state_lag_s(),
    "early_state": state_lag_s(),
    "time_gap": time_gap_periods(),
    "idle_gripper": gripper_range_fraction(),
}
"""In the order in which an episode is judged. Near-duplicates and pictures are looked at elsewhere."""
