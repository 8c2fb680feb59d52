"""Training batches of the policy: windows of the splits, their intent tokens, and the transforms, put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from blm.train.backbone import Backbone, IntentTokens
from blm.train.flow_matching import PolicyBatch
from blm.train.intent_cache import IntentCache
from blm.train.shard_reader import BatchOrder, WindowBatch, Windows
from blm.train.transforms import Transforms


class CachedIntent:
    """Intent tokens read from the cache: no image is decoded and no backbone runs."""

    def __init__(self, cache: IntentCache) -> None:
        self.cache = cache

    def prepare(self, windows: Windows, batch: WindowBatch, *, future: bool) -> IntentTokens:
        """May run on a worker thread."""
        frames = batch.future if future else batch.frame
        keys = [windows.segments[segment].key for segment in batch.segment]
        return self.cache.gather(keys, frames)

    def finish(self, prepared: object) -> IntentTokens:
        assert isinstance(prepared, IntentTokens)
        return prepared


@dataclass(frozen=True)
class _Frames:
    images: np.ndarray
    instructions: list[str]


class LiveIntent:
    """Intent tokens from the backbone, run on every batch: for data seen once, or changed on the fly."""

    def __init__(self, backbone: Backbone, cameras: tuple[str, ...]) -> None:
        self.backbone, self.cameras = backbone, cameras

    def prepare(self, windows: Windows, batch: WindowBatch, *, future: bool) -> _Frames:
        """Decode the images; may run on a worker thread."""
        images = windows.images(batch, self.cameras, future=future)
        return _Frames(images, [windows.instructions[segment] for segment in batch.segment])

    def finish(self, prepared: object) -> IntentTokens:
        assert isinstance(prepared, _Frames)
        return self.backbone.intent(prepared.images, prepared.instructions)


@dataclass(frozen=True)
class _Prepared:
    batch: WindowBatch
    state: np.ndarray
    action: np.ndarray
    intent: object
    future: object | None


class PolicyBatches:
    """An endless stream of PolicyBatch, in the order of `order`, prepared ahead by `workers` threads.

    `state_dict` counts batches handed out, not batches prepared, so that a resume misses and repeats none.
    """

    def __init__(
        self,
        windows: Windows,
        order: BatchOrder,
        source: CachedIntent | LiveIntent,
        transforms: Transforms,
        *,
        device: str = "cpu",
        future: bool = True,
        workers: int = 0,
    ) -> None:
        self.windows, self.order, self.source, self.transforms = windows, order, source, transforms
        self.device, self.future, self.workers = device, future, workers
        self._pool = ThreadPoolExecutor(workers, "batches") if workers else None
        self._pending: deque[Future[_Prepared]] = deque()

    def __next__(self) -> PolicyBatch:
        if self._pool is None:
            return self._finish(self._prepare(next(self.order)))
        while len(self._pending) < self.workers + 1:
            self._pending.append(self._pool.submit(self._prepare, next(self.order)))
        return self._finish(self._pending.popleft().result())

    def state_dict(self) -> dict[str, int]:
        return self.order.state_dict(behind=len(self._pending))

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._pending.clear()
        self.order.load_state_dict(state)

    def _prepare(self, indices: np.ndarray) -> _Prepared:
        batch = self.windows.batch(indices)
        return _Prepared(
            batch,
            self.transforms.encode_state(batch.state, batch.embodiment),
            self.transforms.encode_action(batch.action, batch.state, batch.embodiment),
            self.source.prepare(self.windows, batch, future=False),
            self.source.prepare(self.windows, batch, future=True) if self.future else None,
        )

    def _finish(self, prepared: _Prepared) -> PolicyBatch:
        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(self.device, non_blocking=True)

        return PolicyBatch(
            intent=self.source.finish(prepared.intent).to(self.device),
            state=tensor(prepared.state),
            action=tensor(prepared.action),
            step_mask=tensor(prepared.batch.step_mask),
            axis_mask=tensor(prepared.batch.axis_mask),
            embodiment=tensor(prepared.batch.embodiment),
            future=None if prepared.future is None else self.source.finish(prepared.future).to(self.device),
        )
