"""Where the work of a build runs: functions from Arrow table to Arrow table, applied to many tables.

Such a function depends on nothing but its table and what it was made with, so it gives the same result in this
process and in another, on this machine and on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import pyarrow as pa

EngineName = Literal["local", "ray"]
Batch = Callable[[pa.Table], pa.Table]


class Engine(Protocol):
    """Applies a function to tables."""

    in_process: bool
    """Whether functions run in this process, one at a time, and may report progress by calling back."""

    def map(self, function: Batch, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """The function's results; together they hold a row group for each table, in any order.

        All tables have one schema. A function may be given several of them at once, one after the other.
        """
        ...


class LocalEngine:
    """One table after the other, here; a function that wants several cores starts threads itself."""

    in_process = True

    def map(self, function: Batch, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        return map(function, tables)


def open_engine(name: EngineName, ray_address: str | None = None) -> AbstractContextManager[Engine]:
    """The engine to use inside a `with` block.

    Raises:
        MissingExtraError: Ray is asked for and not installed.
        EngineError: no cluster answers at `ray_address`.
    """
    if name == "local":
        return nullcontext(LocalEngine())
    from blm.curate.engine_ray import ray_engine

    return ray_engine(ray_address)
