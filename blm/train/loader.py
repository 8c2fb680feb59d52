"""A reader's stream with images decoded ahead by processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np

from blm.schemas.errors import MissingExtraError
from blm.train.epoch_order import BatchOrder
from blm.train.image_processes import ImageProcesses

Batch = dict[str, Any]


class Stream(Protocol):
    """What the loader needs of a reader (`blm.train.shard_reader.ShardReader`)."""

    order: BatchOrder
    epochs: int | None

    def __len__(self) -> int: ...

    def __next__(self) -> Batch: ...

    @property
    def images_shape(self) -> tuple[int, ...]: ...

    def batch_at(self, number: int, images: np.ndarray | None = None) -> Batch: ...

    def fill(self, number: int, images: np.ndarray) -> int: ...

    def state_dict(self) -> dict[str, int]: ...

    def load_state_dict(self, state: Mapping[str, int]) -> None: ...


class Loader:
    """A reader's stream with images decoded ahead by processes. Iterate over it; close it or use `with`.

    It moves its reader's place, which counts batches handed out, not those decoded ahead: `state_dict` of either is
    exact at any time, and goes on with any number of workers. With `workers=0` all happens here, at each step.

    Args:
        prefetch: batches decoded ahead per process. Each takes one batch of images of shared memory.
        tensors: give torch tensors (over the same memory) instead of NumPy arrays.
        pin_memory: copy tensors to pinned memory, for copies to a GPU that do not wait.

    Raises:
        MissingExtraError: tensors were asked for and torch is not installed.
    """

    def __init__(
        self,
        reader: Stream,
        workers: int,
        *,
        prefetch: int = 2,
        tensors: bool = True,
        pin_memory: bool = False,
    ) -> None:
        self.reader = reader
        self._convert = _to_tensors(pin_memory) if tensors else None
        self._processes = (
            ImageProcesses(reader.fill, reader.images_shape, workers, prefetch) if workers else None
        )
        self._submitted = self._expected = reader.order.batches

    def __len__(self) -> int:
        return len(self.reader)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = next(self.reader) if self._processes is None else self._next(self._processes)
        return batch if self._convert is None else self._convert(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. Batches handed out stay valid."""
        if self._processes is not None:
            self._processes.close()

    def state_dict(self) -> dict[str, int]:
        return self.reader.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.reader.load_state_dict(state)

    def _next(self, processes: ImageProcesses) -> Batch:
        number = self.reader.order.batches
        if number != self._expected:
            for ahead in range(self._expected, self._submitted):
                processes.take(ahead)
            self._submitted = number
        self._expected = number
        if self.reader.epochs is not None and number >= len(self.reader):
            raise StopIteration
        self._submit(processes, number)
        images = processes.take(number)
        self.reader.order.batches = self._expected = number + 1
        self._submit(processes, number + 1)
        return self.reader.batch_at(number, images)

    def _submit(self, processes: ImageProcesses, first: int) -> None:
        last = first + processes.capacity
        if self.reader.epochs is not None:
            last = min(last, len(self.reader))
        while self._submitted < last:
            processes.submit(self._submitted)
            self._submitted += 1


def _to_tensors(pin_memory: bool) -> Callable[[Batch], Batch]:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train") from error

    def tensor(values: Any) -> Any:
        if not isinstance(values, np.ndarray):
            return values
        made = torch.from_numpy(values)
        return made.pin_memory() if pin_memory else made

    return lambda batch: {name: tensor(values) for name, values in batch.items()}
