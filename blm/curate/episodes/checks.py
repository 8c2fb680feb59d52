"""Which episodes stay: one small function per check, each with a reason, in SQL over the table of episodes.

An episode is dropped by the first check that it fails, in the order of `CHECKS`; later checks (and the medians they
use) see only the episodes still in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import duckdb
import pyarrow as pa

from blm.curate.episodes.config import Thresholds
from blm.curate.episodes.facts import MOTION_WINDOW_S

Reason = Literal[
    "unreadable_data",
    "wrong_length",
    "missing_video",
    "unreadable_video",
    "not_finite",
    "duplicate",
    "not_successful",
    "idle_episode",
    "too_short",
    "too_long",
]

REASONS: tuple[Reason, ...] = get_args(Reason)
"""Every reason for which an episode is dropped. `unreadable_video` is found while decoding; the others in SQL."""

DROPPED_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("episode", pa.int64()),
        ("reason", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("note", pa.string()),
    ]
)
"""Rows of `dropped.parquet`: what was measured, what is allowed, and words where a number does not say it."""


@dataclass(frozen=True)
class Check:
    """An episode is dropped for `reason` where the SQL expression `value` lies below or above `threshold`.

    Expressions see the columns of `DatasetIndex.episodes`, `start` and `stop` of the trimmed episode, `kept_s`, and
    `reason`, which is null for episodes still in.
    """

    reason: Reason
    value: str
    drop: Literal["below", "above"]
    threshold: float
    note: str = "''"


def unreadable_data(_: Thresholds) -> Check:
    """Its data file cannot be read."""
    return Check("unreadable_data", "(unreadable is not null)::int", "above", 0, "unreadable")


def wrong_length_frames(_: Thresholds) -> Check:
    """Rows or video frames differ in number from what the metadata say, or rows are missing in between."""
    differs = "greatest(abs(rows - length), abs(video_frames - length), (not contiguous)::int)"
    note = "format('{} frames announced, {} rows, {} video frames', length, rows, video_frames)"
    return Check("wrong_length", differs, "above", 0, note)


def missing_videos(_: Thresholds) -> Check:
    """A camera's video file is not there."""
    return Check("missing_video", "len(missing_videos)", "above", 0, "array_to_string(missing_videos, ', ')")


def not_finite(_: Thresholds) -> Check:
    """A state or an action holds NaN or infinity."""
    return Check("not_finite", "(not finite)::int", "above", 0)


def duplicates(_: Thresholds) -> Check:
    """An episode with the same states and actions comes earlier (by dataset name and number)."""
    earlier = """count(*) filter (reason is null) over (
        partition by identity order by dataset, episode rows between unbounded preceding and 1 preceding)"""
    return Check("duplicate", earlier, "above", 0)


def known_failure(thresholds: Thresholds) -> Check:
    """It is recorded as failed; an unknown outcome passes."""
    return Check("not_successful", "(success = 'no')::int", "above", 0 if thresholds.require_success else 1)


def idle_throughout(thresholds: Thresholds) -> Check:
    """Its fastest motion is slower than the idle speed."""
    return Check("idle_episode", "top_speed", "below", thresholds.idle_speed)


def too_short_s(thresholds: Thresholds) -> Check:
    """Too little is left after trimming."""
    return Check("too_short", "kept_s", "below", thresholds.min_duration_s)


def too_long_ratio(thresholds: Thresholds) -> Check:
    """It takes many times the median of its robot and task."""
    median = "median(kept_s) filter (reason is null) over (partition by embodiment, task)"
    return Check("too_long", f"kept_s / nullif({median}, 0)", "above", thresholds.max_duration_ratio)


CHECKS: tuple[Callable[[Thresholds], Check], ...] = (
    unreadable_data,
    wrong_length_frames,
    missing_videos,
    not_finite,
    duplicates,
    known_failure,
    idle_throughout,
    too_short_s,
    too_long_ratio,
)


@dataclass(frozen=True)
class Checked:
    """`kept`: the episodes' table with `start`, `stop` (frames, stop exclusive) and `kept_s`; `dropped`: why not."""

    kept: pa.Table
    dropped: pa.Table


def check_episodes(episodes: pa.Table, thresholds: Thresholds, trim_idle: bool = True) -> Checked:
    """Trim idle heads and tails, then apply every check. Rows in = rows kept + rows dropped; both come out sorted."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("given", episodes)
        connection.execute("create table checked as " + _trimmed_query(thresholds, trim_idle))
        for make in CHECKS:
            _apply(connection, make(thresholds))
        by = "order by dataset, episode"
        verdict = "reason, measured, threshold, verdict_note"
        kept = connection.sql(f"select * exclude ({verdict}) from checked where reason is null {by}")
        dropped = connection.sql(
            f"""select dataset, episode, reason, measured as value, threshold, verdict_note as note
            from checked where reason is not null {by}"""
        )
        return Checked(kept.to_arrow_table(), dropped.to_arrow_table().cast(DROPPED_SCHEMA))


def _trimmed_query(thresholds: Thresholds, trim_idle: bool) -> str:
    """The given rows with `start`, `stop`, `kept_s` and empty verdicts.

    A window is faster than the idle speed because of something within it: motion may begin at the window's first
    frame and end at its last.
    """
    margin = f"round({thresholds.idle_margin_s!r} * rate_hz)::bigint"
    window = f"greatest(1, round({MOTION_WINDOW_S!r} * rate_hz))::bigint"
    start = f"greatest(0, moves_from - {margin})" if trim_idle else "0"
    stop = f"least(rows, moves_to + {window} + 1 + {margin})" if trim_idle else "rows"
    return f"""
        select *, (stop - start) / rate_hz as kept_s, null::varchar as reason,
            null::double as measured, null::double as threshold, null::varchar as verdict_note
        from (
            select *, coalesce({start}, 0)::bigint as start, coalesce({stop}, rows)::bigint as stop from given
        )
    """


def _apply(connection: duckdb.DuckDBPyConnection, check: Check) -> None:
    comparison = "<" if check.drop == "below" else ">"
    connection.execute(
        f"""create or replace table checked as
        with measured as (select *, ({check.value})::double as now, ({check.note})::varchar as words from checked),
        judged as (select *, reason is null and coalesce(now {comparison} $threshold, false) as fails from measured)
        select * exclude (reason, measured, threshold, verdict_note, now, words, fails),
            case when fails then $reason else reason end as reason,
            case when fails then now else measured end as measured,
            case when fails then $threshold else threshold end as threshold,
            case when fails then words else verdict_note end as verdict_note
        from judged""",
        {"threshold": float(check.threshold), "reason": check.reason},
    )
