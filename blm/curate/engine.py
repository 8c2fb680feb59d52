"""Where the work of a build runs: functions that depend on nothing but what they are given and were made with.

Such a function gives the same result in this process and in another, on this machine and on another. Results of
`map` may come in any order, those of `stream` come in the order of what goes in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import pyarrow as pa

EngineName = Literal["local", "ray"]
Batch = Callable[[pa.Table], pa.Table]


class Engine(Protocol):
    """Applies a function to tables, or to anything that can be pickled."""

    in_process: bool
    """Whether functions run in this process, one at a time, and may report progress by calling back."""

    def map(self, function: Batch, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """The function's results; together they hold a row group for each table, in any order.

        All tables have one schema. A function may be given several of them at once, one after the other.
        """
        ...

    def stream[T, R](self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The function's results, in the order of `items`; only a few of these are taken ahead.

        Elsewhere the function is sent to each process once: what it keeps in itself, it finds again there.
        """
        ...


class LocalEngine:
    """One after the other, here; a function that wants several cores starts threads itself."""

    in_process = True

    def map(self, function: Batch, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        return map(function, tables)

    def stream[T, R](self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        return map(function, items)


def few_at_once[T, H, R](
    items: Iterable[T],
    begin: Callable[[T], H],
    result: Callable[[H], R],
    at_once: int,
    cancel: Callable[[H], object],
) -> Generator[R]:
    """Results in order, of work that is begun for at most `at_once` items; `cancel` ends what nobody waits for."""
    waiting: deque[H] = deque()
    try:
        for item in items:
            waiting.append(begin(item))
            if len(waiting) >= at_once:
                yield result(waiting.popleft())
        while waiting:
            yield result(waiting.popleft())
    finally:
        for one in waiting:
            cancel(one)


def open_engine(
    name: EngineName, ray_address: str | None = None, processes: int = 1
) -> AbstractContextManager[Engine]:
    """The engine to use inside a `with` block. `processes`: of the local engine; more than one run beside this one.

    Raises:
        MissingExtraError: Ray is asked for and not installed.
        EngineError: no cluster answers at `ray_address`.
    """
    if name == "ray":
        from blm.curate.engine_ray import ray_engine

        return ray_engine(ray_address)
    if processes > 1:
        from blm.curate.engine_processes import process_engine

        return process_engine(processes)
    return nullcontext(LocalEngine())
