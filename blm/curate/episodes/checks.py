"""Which episodes stay, and what is worth knowing about each: every rule applied, in SQL over the table of episodes.

An episode is dropped by the first rule of severity `drop` that it breaks, in the order of `MEASURES`; the medians and
counts that later rules use see only the episodes still in. All findings are kept, also warnings and second reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blm.curate.episodes.facts import MOTION_WINDOW_S
from blm.curate.episodes.measures import MEASURES, Measure
from blm.curate.episodes.near_duplicates import find_near_duplicates
from blm.curate.episodes.pictures import PictureFinding, read_picture_note
from blm.curate.episodes.reasons import ALWAYS_DROPPED, REASONS, Reason, Rule
from blm.curate.episodes.thresholds import CheckSetting, Thresholds, resolve_rules

__all__ = ["DROPPED_SCHEMA", "FINDINGS_SCHEMA", "REASONS", "Checked", "check_episodes", "with_unpacked"]

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

FINDINGS_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("episode", pa.int64()),
        ("reason", pa.string()),
        ("severity", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("unit", pa.string()),
        ("note", pa.string()),
    ]
)
"""Rows of `findings.parquet`: everything found, also warnings and further reasons against a dropped episode."""

_KEY = ("dataset", "episode")

_UNREAD: tuple[Reason, ...] = ("unreadable_data", "missing_video", "duplicate", "not_successful")
"""What can be said of an episode whose data file cannot be read."""


@dataclass(frozen=True)
class Checked:
    """What checking led to, each table ordered by dataset and episode.

    Attributes:
        kept: the episodes' table with `start`, `stop` (frames, stop exclusive), `kept_s` and `group`, which is the
            same for all near-duplicates of an episode and else its own identity.
        dropped: why the others are not kept, as `DROPPED_SCHEMA`.
        findings: as `FINDINGS_SCHEMA`.
        relatives: the episodes that are not kept but near-duplicates of kept ones, with `group`: they too have a say in
            which split their group belongs to, which therefore does not change with what is dropped.
    """

    kept: pa.Table
    dropped: pa.Table
    findings: pa.Table
    relatives: pa.Table


def check_episodes(
    episodes: pa.Table,
    thresholds: Thresholds,
    trim_idle: bool = True,
    checks: Mapping[Reason, CheckSetting] | None = None,
) -> Checked:
    """Trim idle heads and tails, then apply every rule. Rows in = rows kept + rows dropped; all come out sorted."""
    rules = resolve_rules(thresholds, checks)
    episodes = episodes.sort_by([("dataset", "ascending"), ("episode", "ascending")])
    numbered = episodes.append_column("row", pa.array(range(len(episodes)), pa.int64()))
    heavy = [name for name in numbered.column_names if name.startswith("video/") or name == "signature"]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("given", numbered.drop_columns(heavy))
        connection.execute("create table checked as " + _trimmed_query(thresholds, trim_idle))
        connection.execute(
            """create table findings (row bigint, step int, reason varchar, severity varchar, value double,
            threshold double, unit varchar, note varchar)"""
        )
        for step, (reason, measure) in enumerate(MEASURES.items()):
            _apply(connection, step, reason, measure, rules[reason])
        group = _find_near_duplicates(connection, episodes, rules["near_duplicate"], len(MEASURES))
        trimmed = connection.sql(
            "select row, start, stop, kept_s from checked where reason is null order by row"
        ).to_arrow_table()
        kept = episodes.take(trimmed["row"])
        for name in ("start", "stop", "kept_s"):
            kept = kept.append_column(name, trimmed[name])
        groups = pa.array(group, pa.string())
        kept = kept.append_column("group", groups.take(trimmed["row"]))
        relatives = episodes.append_column("group", groups).take(
            _relatives(group, trimmed["row"].to_pylist())
        )
        return Checked(kept, _dropped(connection), _findings(connection), relatives)


def _relatives(group: Sequence[str | None], kept: Sequence[int]) -> pa.Array:
    """Rows that are not kept and share their group with one that is."""
    of_kept, known = {group[row] for row in kept} - {None}, set(kept)
    rows = [row for row, name in enumerate(group) if name in of_kept and row not in known]
    return pa.array(rows, pa.int64())


def with_unpacked(
    checked: Checked,
    notes: Mapping[tuple[str, int], str],
    thresholds: Thresholds,
    checks: Mapping[Reason, CheckSetting],
) -> Checked:
    """`checked` with what is said of the pictures of episodes, by (dataset, episode), after decoding them.

    A note that is not a `picture_note` means an unreadable video. Episodes with a finding of severity `drop` go.
    """
    rules = resolve_rules(thresholds, checks)
    findings = [
        {"dataset": dataset, "episode": episode, **finding}
        for (dataset, episode), note in notes.items()
        for finding in _as_findings(note, rules)
    ]
    added = pa.Table.from_pylist(findings, schema=FINDINGS_SCHEMA)
    dropped = _first_of_each(added)
    gone = set(zip(*(dropped[name].to_pylist() for name in _KEY), strict=True))
    kept = zip(*(checked.kept[name].to_pylist() for name in _KEY), strict=True)
    by = [(name, "ascending") for name in _KEY]
    return Checked(
        kept=checked.kept.filter(pa.array([key not in gone for key in kept], pa.bool_())),
        dropped=pa.concat_tables([checked.dropped, dropped]).sort_by(by),
        findings=pa.concat_tables([checked.findings, added]).sort_by(by),
        relatives=checked.relatives,
    )


def _first_of_each(findings: pa.Table) -> pa.Table:
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for row in findings.filter(pc.field("severity") == "drop").to_pylist():
        first.setdefault((row["dataset"], row["episode"]), row)
    rows = [{name: row[name] for name in DROPPED_SCHEMA.names} for row in first.values()]
    return pa.Table.from_pylist(rows, schema=DROPPED_SCHEMA)


def _as_findings(note: str, rules: Mapping[Reason, Rule]) -> list[dict[str, Any]]:
    found = read_picture_note(note) or [PictureFinding("unreadable_video", 1.0, note)]
    return [
        {
            "reason": one.reason,
            "severity": "drop" if one.reason in ALWAYS_DROPPED else rules[one.reason].severity,
            "value": one.value,
            "threshold": rules[one.reason].threshold,
            "unit": rules[one.reason].unit,
            "note": one.note,
        }
        for one in found
    ]


def _trimmed_query(thresholds: Thresholds, trim_idle: bool) -> str:
    """The given rows with `start`, `stop`, `kept_s` and an empty verdict.

    A window is faster than the idle speed because of something within it: motion may begin at the window's first
    frame and end at its last.
    """
    margin = f"round({thresholds.idle_margin_s!r} * rate_hz)::bigint"
    window = f"greatest(1, round({MOTION_WINDOW_S!r} * rate_hz))::bigint"
    start = f"greatest(0, moves_from - {margin})" if trim_idle else "0"
    stop = f"least(rows, moves_to + {window} + 1 + {margin})" if trim_idle else "rows"
    return f"""
        select *, (stop - start) / rate_hz as kept_s, null::varchar as reason
        from (
            select *, coalesce({start}, 0)::bigint as start, coalesce({stop}, rows)::bigint as stop from given
        )
    """


def _apply(
    connection: duckdb.DuckDBPyConnection, step: int, reason: Reason, measure: Measure, rule: Rule
) -> None:
    if rule.severity == "off":
        return
    comparison = "<" if rule.fails == "below" else ">"
    readable = "true" if reason in _UNREAD else "unreadable is null"
    connection.execute(
        f"""insert into findings
        with measured as (
            select row, unreadable, ({measure.value})::double as value, ({measure.note})::varchar as note from checked
        )
        select row, $step, $reason, $severity, value, $threshold, $unit, note
        from measured where value {comparison} $threshold and {readable}""",
        {
            "step": step,
            "reason": reason,
            "severity": rule.severity,
            "threshold": float(rule.threshold),
            "unit": rule.unit,
        },
    )
    if rule.severity == "drop":
        connection.execute(
            """update checked set reason = $reason
            where reason is null and row in (select row from findings where step = $step)""",
            {"reason": reason, "step": step},
        )


def _find_near_duplicates(
    connection: duckdb.DuckDBPyConnection, episodes: pa.Table, rule: Rule, step: int
) -> list[str | None]:
    """The `group` of every episode, dropped or not; near-duplicates of an earlier one still in become findings."""
    group: list[str | None] = episodes["identity"].to_pylist()
    if rule.severity == "off" or "signature" not in episodes.column_names:
        return group
    moving = connection.sql(
        f"""select row, embodiment, reason is null as still_in,
            (least(moves_to + greatest(1, round({MOTION_WINDOW_S!r} * rate_hz)), rows - 1) - moves_from) / rate_hz as s
        from checked where unreadable is null and moves_from is not null order by row"""
    ).to_arrow_table()
    for name in sorted(set(moving["embodiment"].to_pylist())):
        _add_near_duplicates(
            connection, episodes, rule, step, moving.filter(pc.field("embodiment") == name), group
        )
    return group


def _add_near_duplicates(
    connection: duckdb.DuckDBPyConnection,
    episodes: pa.Table,
    rule: Rule,
    step: int,
    moving: pa.Table,
    group: list[str | None],
) -> None:
    rows, seconds, still_in = (
        moving[name].to_numpy(zero_copy_only=False) for name in ("row", "s", "still_in")
    )
    paths = _paths(episodes["signature"].take(pa.array(rows)))
    found = find_near_duplicates(paths, seconds, rule.threshold, still_in)
    members: dict[int, list[str]] = {}
    for row, root in zip(rows, found.group, strict=True):
        members.setdefault(int(root), []).append(group[row] or "")
    for row, root in zip(rows, found.group, strict=True):
        group[row] = min(members[int(root)])
    dataset, episode = episodes["dataset"], episodes["episode"]
    for late in np.flatnonzero(found.partner >= 0):
        early = int(rows[found.partner[late]])
        connection.execute(
            "insert into findings values (?, ?, 'near_duplicate', ?, ?, ?, ?, ?)",
            [
                int(rows[late]),
                step,
                rule.severity,
                float(found.distance[late]),
                rule.threshold,
                rule.unit,
                f"of {dataset[early]} {episode[early]}",
            ],
        )
    if rule.severity == "drop":
        connection.execute(
            """update checked set reason = 'near_duplicate'
            where reason is null and row in (select row from findings where step = $step)""",
            {"step": step},
        )


def _paths(signatures: pa.ChunkedArray) -> np.ndarray:
    """(n, P, A) float32 from the bytes of signatures of one embodiment."""
    from blm.curate.episodes.trajectories import POINTS

    drawn = [np.frombuffer(one, "<f4") for one in signatures.to_pylist()]
    return np.stack(drawn).reshape(len(drawn), POINTS, -1)


def _dropped(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """The first finding of severity `drop` against each episode that is out."""
    return (
        connection.sql(
            """select dataset, episode, reason, value, threshold, note
            from findings join (select row, dataset, episode from checked) using (row)
            where severity = 'drop'
            qualify row_number() over (partition by row order by step) = 1
            order by dataset, episode"""
        )
        .to_arrow_table()
        .cast(DROPPED_SCHEMA)
    )


def _findings(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    return (
        connection.sql(
            """select dataset, episode, reason, severity, value, threshold, unit, note
            from findings join (select row, dataset, episode from checked) using (row)
            order by dataset, episode, step"""
        )
        .to_arrow_table()
        .cast(FINDINGS_SCHEMA)
    )
