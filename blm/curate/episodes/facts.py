"""Facts about each episode, computed in SQL over its frames: counts, finiteness, when it moves, how it ended."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from blm.curate.episodes.frames import Frames, content_hash
from blm.schemas.embodiment import Embodiment

MOTION_WINDOW_S = 0.2
"""Displacement is measured over this long, so that one count of encoder noise does not read as motion."""


def motion_window(rate_hz: float) -> int:
    """`MOTION_WINDOW_S` in frames, at least one."""
    return max(1, round(MOTION_WINDOW_S * rate_hz))


def episode_facts(frames: Frames, embodiment: Embodiment, rate_hz: float, idle_speed: float) -> pa.Table:
    """One row per episode in `frames`.

    Columns: `episode`; `rows`; `contiguous` (frame indices are 0, 1, …, rows − 1); `finite`; `ended_well` (success
    was recorded at any frame; null where it is not recorded); `top_speed` (see `Thresholds`); `moves_from` and
    `moves_to`, the first frame of the first and of the last window of `MOTION_WINDOW_S` faster than `idle_speed`
    (null if there is none); `identity`, the content's SHA-256.
    """
    axes = len(embodiment.axes)
    columns = {f"state_{i}": frames.state[:, i] for i in range(axes)}
    columns |= {f"action_{i}": frames.action[:, i] for i in range(axes)}
    success = pa.nulls(len(frames.frame), pa.bool_()) if frames.success is None else pa.array(frames.success)
    table = pa.table({"episode": frames.episode, "frame": frames.frame, "success": success, **columns})
    window = motion_window(rate_hz)
    spans = embodiment.column("upper") - embodiment.column("lower")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("frames", table)
        query = _facts_query([*columns], [*spans, *spans], window, window / rate_hz)
        facts = connection.sql(query, params={"idle_speed": idle_speed}).to_arrow_table()
    identities = [content_hash(frames, frames.span(one)) for one in facts["episode"].to_pylist()]
    return facts.append_column("identity", pa.array(identities, pa.string()))


def _facts_query(names: list[str], spans: list[float], window: int, window_s: float) -> str:
    speeds = (
        f"abs(lead({name}, {window}) over ordered - {name}) / {float(span) * window_s!r}"
        for name, span in zip(names, spans, strict=True)
    )
    finite = " and ".join(f"isfinite({name})" for name in names)
    return f"""
        with moving as (
            select episode, frame, success, {finite} as finite, greatest({", ".join(speeds)}) as speed
            from frames
            window ordered as (partition by episode order by frame)
        )
        select
            episode,
            count(*) as rows,
            min(frame) = 0 and max(frame) = count(*) - 1 and count(distinct frame) = count(*) as contiguous,
            bool_and(finite) as finite,
            bool_or(success) as ended_well,
            coalesce(max(speed) filter (isfinite(speed)), 0) as top_speed,
            min(frame) filter (speed > $idle_speed) as moves_from,
            max(frame) filter (speed > $idle_speed) as moves_to
        from moving group by episode order by episode
    """
