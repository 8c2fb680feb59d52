"""Processes that fill batches of images ahead of their use, in memory that they share with the reader.

Processes, not threads, although decoding releases Python's lock: between images a thread would wait for it while the
trainer's own Python runs, and augmentation written in Python would not run in parallel at all. Each batch is decoded
straight into a *slot* of shared memory and handed out as it lies there, without a copy; the slot is used again once
nothing refers to the batch.
Slots are anonymous shared mappings made before the processes are forked: there is no file to clean up and no
`/dev/shm` to overflow.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import numpy as np

from blm.schemas.errors import BlmError, ConfigError

Fill = Callable[[int, np.ndarray], int]
"""Fill the first rows of (rows, …) uint8 with the images of batch number …; returns how many rows."""


class WorkerError(BlmError):
    """A reading process ended by itself, or failed in a way that is not the data's."""


class ImageProcesses:
    """`workers` processes that run `fill` for batches in any order and hand the results out by batch number.

    Keep at most `capacity` batches submitted and not taken. Close it, or let it be garbage collected with its process.
    """

    def __init__(self, fill: Fill, shape: tuple[int, ...], workers: int, prefetch: int) -> None:
        if workers < 1 or prefetch < 1:
            raise ConfigError(f"workers ({workers}) and prefetch ({prefetch}) must be at least 1.")
        self.capacity = workers * prefetch
        self._shape = shape
        size = max(1, math.prod(shape))
        self._slots = [mmap.mmap(-1, size) for _ in range(self.capacity + 2)]
        self._free = deque(range(len(self._slots)))
        self._ready: dict[int, tuple[int, int]] = {}
        self._waiting: list[int] = [0] * workers
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._start(fill, workers)

    def submit(self, batch: int) -> None:
        """Have a batch decoded by the process with the least to do."""
        worker = min(range(len(self._pipes)), key=self._waiting.__getitem__)
        self._waiting[worker] += 1
        try:
            self._pipes[worker].send((batch, self._free.popleft()))
        except OSError as error:
            raise self._ended(worker) from error

    def take(self, batch: int) -> np.ndarray:
        """The images of a submitted batch, (rows, …) uint8; waits for them.

        Raises:
            BlmError: what `fill` raised; WorkerError where the process ended.
        """
        while batch not in self._ready:
            self._receive()
        slot, rows = self._ready.pop(batch)
        if self._free:
            lease = _Lease(self._slots[slot], slot, self._free)
            images = np.frombuffer(lease, np.uint8, math.prod(self._shape))
            return images.reshape(self._shape)[:rows]
        # Whoever keeps many batches gets copies, so that there is always room to go on.
        images = self._view(slot)[:rows].copy()
        self._free.append(slot)
        return images

    def close(self) -> None:
        """End the processes. Batches handed out stay valid."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=2)
            if process.is_alive():
                process.terminate()
                process.join()
        self._pipes, self._processes = [], []

    def _start(self, fill: Fill, workers: int) -> None:
        try:
            context = multiprocessing.get_context("fork")
        except ValueError as error:
            raise ConfigError("Reading with several processes needs fork.", "Use workers=0.") from error
        for _ in range(workers):
            ours, theirs = context.Pipe()
            inherited = [*self._pipes, ours]
            process = context.Process(target=_work, args=(theirs, inherited, fill, self._view), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def _view(self, slot: int) -> np.ndarray:
        return np.frombuffer(self._slots[slot], np.uint8, math.prod(self._shape)).reshape(self._shape)

    def _receive(self) -> None:
        for ready in wait(self._pipes):
            worker = self._pipes.index(ready)  # type: ignore[arg-type]
            try:
                batch, slot, rows, error = self._pipes[worker].recv()
            except (EOFError, OSError) as gone:
                raise self._ended(worker) from gone
            self._waiting[worker] -= 1
            if error is not None:
                self._free.append(slot)
                raise error
            self._ready[batch] = slot, rows

    def _ended(self, worker: int) -> WorkerError:
        process = self._processes[worker]
        process.join(timeout=2)
        return WorkerError(
            f"A reading process ended by itself (exit code {process.exitcode}).",
            "Was memory short? Use fewer workers or a smaller batch.",
        )


class _Lease:
    """Buffer over a slot; frees the slot when the last array over it is gone."""

    def __init__(self, memory: mmap.mmap, slot: int, free: deque[int]) -> None:
        self._memory, self._slot, self._free = memory, slot, free

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._memory)

    def __del__(self) -> None:
        self._free.append(self._slot)


def _work(
    pipe: Connection, inherited: Sequence[Connection], fill: Fill, view: Callable[[int], np.ndarray]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the reader's own process decides when to end
    for other in inherited:
        other.close()  # or the pipes would stay open, and this process alive, after the reader's is killed
    while True:
        try:
            batch, slot = pipe.recv()
        except (EOFError, OSError):
            return
        rows, error = 0, None
        try:
            rows = fill(batch, view(slot))
        except Exception as raised:
            error = _for_transport(raised)
        try:
            pipe.send((batch, slot, rows, error))
        except OSError:
            return


def _for_transport(error: Exception) -> BlmError:
    """Ours travel between processes whole; of others, only the text is sure to."""
    if isinstance(error, BlmError):
        return error
    text = "".join(traceback.format_exception(error)).strip()
    return WorkerError(f"A reading process failed:\n{text}")
