"""A build's functions under Ray Data: on a cluster that is there already, or on one started for the build.

Every node must see the inputs and the output folder under the same paths, and have the same version of blm. Arrow
tables of plans and results are all that passes through Ray; images go from a worker straight to its shard.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from blm.curate.engine import Batch, Engine
from blm.schemas.errors import BlmError, EngineError, MissingExtraError

_STARTED_HERE_STORE_BYTES = 200_000_000
"""Object store of a cluster that we start: it holds tables of plans, never images."""


class RayEngine:
    """One task of one core per table, wherever the cluster has room."""

    in_process = False

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(self, function: Batch, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
        if not tables:
            return
        results = self._ray.data.from_arrow(list(tables)).map_batches(
            function, batch_size=None, batch_format="pyarrow", num_cpus=1
        )
        try:
            yield from results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        except self._ray.exceptions.RayError as error:
            raise _cause(error) from error


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
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address or 'this machine'}: {error}",
            "Check --ray-address and the cluster's token, or leave it away to start Ray here.",
        ) from error
    try:
        _quieten(ray)
        yield RayEngine(ray)
    finally:
        ray.shutdown()


def _quieten(ray: Any) -> None:
    """The build reports its own progress."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _cause(error: BaseException) -> BaseException:
    """What our own function raised, where it was one of ours; else what Ray says."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, BlmError):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return EngineError(f"Ray gave up: {error}", "See the logs of the cluster.")
