"""A build's functions under Ray Data: on a cluster that is there already, or on one started for the build.

Every node must see the inputs and the output folder under the same paths, and have the same version of blm. Of splits,
Arrow tables of plans and results are all that passes through Ray; images go from a worker straight to its shard. Of a
corpus, batches of conversations go out with their images, and records come back.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from blm.curate.engine import Batch, Engine, few_at_once
from blm.curate.engine_processes import apply
from blm.schemas.errors import BlmError, EngineError, MissingExtraError

_STARTED_HERE_STORE_BYTES = 200_000_000
"""Object store of a cluster that we start: tables of plans, and a few batches of conversations."""
_RESULT_BYTES = 1024**2
"""What Ray Data is told to expect of a task. By default it expects 128 MB, and lets one task run at a time where the
object store holds a few hundred."""
_MOST_AT_ONCE = 128
"""Items of a stream that wait in memory here."""


class RayEngine:
    """One task of one core per table, wherever the cluster has room."""

    in_process = False

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(self, function: Batch, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        if not tables:
            return
        results = self._ray.data.from_arrow(list(tables)).map_batches(
            Carried(function), batch_size=None, batch_format="pyarrow", num_cpus=1
        )
        try:
            for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from unpacked(batch)
        except self._ray.exceptions.RayError as error:
            raise EngineError(f"Ray gave up: {error}", "See the logs of the cluster.") from error

    def stream[T, R](self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Two tasks per core of the cluster are under way at a time, of a large one `_MOST_AT_ONCE`."""
        content = self._ray.put(pickle.dumps(function))
        task = self._ray.remote(num_cpus=1)(applied)
        cores = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        at_once = min(2 * cores, _MOST_AT_ONCE)

        def result(reference: Any) -> R:
            found, failure = self._ray.get(reference)
            if failure is not None:
                raise failure
            return found

        try:
            yield from few_at_once(
                items, lambda item: task.remote(content, item), result, at_once, self._ray.cancel
            )
        except self._ray.exceptions.RayError as error:
            raise EngineError(f"Ray gave up: {error}", "See the logs of the cluster.") from error


def applied(function: bytes, item: Any) -> tuple[Any, BlmError | None]:
    """The result of a pickled function, or its expected error, which Ray would wrap."""
    try:
        return apply(function, item), None
    except BlmError as error:
        return None, error


@dataclass(frozen=True)
class Carried:
    """A function whose result, or whose expected error, travels as one row of bytes: Ray would wrap the error."""

    function: Batch

    def __call__(self, table: pa.Table) -> pa.Table:
        content = failure = None
        try:
            content = _as_bytes(self.function(table))
        except BlmError as error:
            failure = pickle.dumps(error)
        kind = pa.large_binary()
        return pa.table({"content": pa.array([content], kind), "failure": pa.array([failure], kind)})


def unpacked(batch: pa.Table) -> Iterator[pa.Table]:
    """What `Carried` packed; raises what it caught."""
    for row in batch.to_pylist():
        if row["failure"] is not None:
            raise pickle.loads(row["failure"])  # from a process that runs our own code
        yield pa.ipc.open_stream(row["content"]).read_all()


def _as_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@contextmanager
def ray_engine(address: str | None) -> Iterator[Engine]:
    """Join the cluster at `address` or `RAY_ADDRESS`, or start one here; end only what was started here.

    Raises:
        MissingExtraError: Ray is not installed.
        EngineError: no cluster answers.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "scale") from error
    if ray.is_initialized():
        yield RayEngine(ray)
        return
    address = address or os.environ.get("RAY_ADDRESS")
    starting: dict[str, Any] = {} if address else {"object_store_memory": _STARTED_HERE_STORE_BYTES}
    if not address:
        starting["include_dashboard"] = False
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **starting)
    except Exception as error:  # Ray raises plain ones too
        ray.shutdown()
        if address:
            message, remedy = (
                f"no Ray cluster answers at {address}",
                "Check --ray-address and the cluster's token.",
            )
        else:
            message, remedy = (
                "Ray does not start here",
                "Try again when the machine is less busy, or use a cluster.",
            )
        raise EngineError(f"{message}: {error}", remedy) from error
    try:
        _prepare(ray)
        yield RayEngine(ray)
    finally:
        ray.shutdown()


def _prepare(ray: Any) -> None:
    """The build reports its own progress, and its tasks return little."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = _RESULT_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
