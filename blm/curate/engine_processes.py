"""A build's functions in processes beside this one, for work that holds Python's lock.

Processes are spawned, not forked: threads of Arrow and DuckDB do not survive a fork. A script that builds this way must
guard what it does with `if __name__ == "__main__":`.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa

from blm.curate.engine import Batch, Engine, few_at_once
from blm.schemas.errors import EngineError


class ProcessEngine:
    """Two items per process are under way at a time."""

    in_process = False

    def __init__(self, pool: ProcessPoolExecutor, processes: int) -> None:
        self._pool, self._processes = pool, processes

    def map(self, function: Batch, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        return self.stream(function, tables)

    def stream[T, R](self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        content = pickle.dumps(function)

        def begin(item: T) -> Future[R]:
            return self._pool.submit(apply, content, item)

        try:
            yield from few_at_once(items, begin, Future.result, 2 * self._processes, Future.cancel)
        except BrokenProcessPool as error:
            raise EngineError(
                "a worker process ended before its work was done.",
                "It may have run out of memory: use fewer --workers.",
            ) from error


def apply(function: bytes, item: Any) -> Any:
    """Call a pickled function, which stays in this process for the next item."""
    return _restored(function)(item)


@lru_cache(maxsize=4)
def _restored(function: bytes) -> Callable[[Any], Any]:
    return pickle.loads(function)  # from the process that started this one


@contextmanager
def process_engine(processes: int) -> Iterator[Engine]:
    """So many processes, which end with the `with` block."""
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield ProcessEngine(pool, processes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
