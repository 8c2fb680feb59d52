"""The one optimisation loop of both training stages.

    batches ──▶ loss ──▶ backward (× accumulate) ──▶ clip ──▶ AdamW ──▶ moving average ──▶ losses.jsonl, checkpoint

Everything random is a function of the seed, the step and the saved generator states, so a run that was killed and
resumed gives the same losses as one that was not.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import nn

from blm.schemas.errors import CheckpointError, ConfigError
from blm.schemas.manifest import write_atomically
from blm.schemas.progress import Progress, silent
from blm.schemas.yaml_model import FrozenModel
from blm.train.checkpoint import (
    Checkpoint,
    Tensors,
    latest_checkpoint,
    load_tensors,
    read_checkpoint,
    save_checkpoint,
    trainable_tensors,
)

CONFIG_FILE = "config.json"
LOSSES_FILE = "losses.jsonl"


class LoopConfig(FrozenModel):
    """How to optimise: nothing about models or data."""

    steps: int = Field(ge=1, description="optimiser steps")
    learning_rate: float = Field(default=1e-4, gt=0, description="after warm-up")
    warmup: float = Field(default=0.05, ge=0, le=1, description="fraction of the steps with a rising rate")
    final_rate: float = Field(default=0.0, ge=0, le=1, description="last rate as a fraction of learning_rate")
    weight_decay: float = Field(default=0.01, ge=0, description="of matrices; vectors are not decayed")
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = Field(default=1.0, gt=0, description="largest gradient norm")
    accumulate: int = Field(default=1, ge=1, description="batches per optimiser step")
    average_decay: float | None = Field(
        default=None, ge=0, lt=1, description="of the moving average of weights"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the forward pass; parameters stay float32"
    )
    log_every: int = Field(default=10, ge=1, description="steps between rows of losses.jsonl")
    checkpoint_every: int = Field(
        default=1000, ge=0, description="steps between checkpoints; 0 = only at the end"
    )
    keep_checkpoints: int = Field(default=2, ge=1)
    seed: int = Field(default=0, ge=0)


def check_device(name: str) -> None:
    """Complain before anything is written.

    Raises:
        ConfigError: torch knows no such device, or it is not in this machine.
    """
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        present = torch.accelerator.current_accelerator(check_available=True)
        here = f"cpu, {present}" if present is not None else "cpu"
        raise ConfigError(
            f"device '{name}' cannot be used on this machine; there are: {here}.", "Choose another --device."
        ) from error


@contextmanager
def forgotten_unless_begun(run: Path) -> Iterator[None]:
    """A run that ends before its first row or checkpoint is no run: the same folder can be used again."""
    try:
        yield
    except BaseException:
        if not (run / LOSSES_FILE).exists() and latest_checkpoint(run) is None:
            (run / CONFIG_FILE).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class TrainSummary:
    """What a training run came to; also written to RUN/summary.json.

    Attributes:
        output: the run's folder.
        steps: optimiser steps done, over all resumes.
        losses: the last logged row of training losses, by name.
        validation: figures on the validation split, by name with their unit.
        samples_per_second: training throughput of this process, without evaluation.
        seconds: wall time of this process.
    """

    output: Path
    steps: int
    losses: Mapping[str, float]
    validation: Mapping[str, float] = field(default_factory=dict)
    samples_per_second: float = 0.0
    seconds: float = 0.0

    def write(self) -> Path:
        """Write `summary.json` into the run's folder; its presence means that the run is complete."""
        path = self.output / "summary.json"
        content = {**self.__dict__, "output": str(self.output)}
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
        return path


class BatchSource[Batch](Protocol):
    """An endless stream of batches that knows where it is."""

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, int]: ...

    def load_state_dict(self, state: Mapping[str, int]) -> None: ...


class MovingAverage:
    """An exponential moving average of a model's trainable weights, as a model of its own (`.model`, frozen).

    The decay grows from 0.1 towards `decay` over the first steps, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        averaged = dict(self.model.named_parameters())
        pairs = [(averaged[n], p) for n, p in model.named_parameters() if p.requires_grad]
        self._averaged: list[torch.Tensor] = [mine for mine, _ in pairs]
        self._current: list[torch.Tensor] = [theirs for _, theirs in pairs]
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))
        self._names = [n for n, p in model.named_parameters() if p.requires_grad]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model's weights after optimiser step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)

    def state_dict(self) -> Tensors:
        return dict(zip(self._names, self._averaged, strict=True))

    @torch.no_grad()
    def load_state_dict(self, tensors: Tensors) -> None:
        if tensors.keys() != set(self._names):
            raise CheckpointError(
                "The checkpoint's averaged weights do not fit the model.", "Use the same config."
            )
        for name, mine in zip(self._names, self._averaged, strict=True):
            mine.copy_(tensors[name])


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Rate of optimiser step `step` (from 0): linear warm-up, then half a cosine down to the final rate."""
    warmup = round(config.warmup * config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    along = (step - warmup) / max(1, config.steps - warmup)
    floor = config.final_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along)))


def build_optimizer(model: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: weight decay on matrices, none on vectors (biases, norms)."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


class TrainLoop[Batch]:
    """Optimises `model` on `batches`, restartable at any checkpoint.

    Usage: build, `resume()` if wanted, `run(batches, loss)`. `average.model` holds the averaged weights.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: BatchSource[Batch],
        config: LoopConfig,
        output: Path,
        *,
        samples_per_batch: int,
        progress: Progress | None = None,
        label: str = "training",
    ) -> None:
        self.model, self.batches, self.config, self.output = model, batches, config, output
        self.samples_per_step = samples_per_batch * config.accumulate
        self.progress, self.label = progress or silent, label
        self.step = 0
        self.optimizer = build_optimizer(model, config)
        decay = config.average_decay
        self.average = MovingAverage(model, decay) if decay is not None else None
        self.device = next(model.parameters()).device
        self.samples_per_second = 0.0
        torch.manual_seed(config.seed)

    def resume(self) -> bool:
        """Go on from the newest checkpoint under `output`; False where there is none."""
        folder = latest_checkpoint(self.output)
        if folder is None:
            return False
        checkpoint = read_checkpoint(folder)
        load_tensors(self.model, checkpoint.tensors["model"], str(folder))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.tensors["average"])
        self._load_optimizer(checkpoint.tensors["optimizer"])
        _load_random_states(checkpoint.tensors["random"])
        self.batches.load_state_dict(checkpoint.state["batches"])
        self.step = checkpoint.step
        _forget_rows_after(self.output / LOSSES_FILE, self.step)
        return True

    def run(self, loss_function: Callable[[Batch, int], Mapping[str, torch.Tensor]]) -> dict[str, float]:
        """Train up to `config.steps` and return the last logged row.

        `loss_function(batch, draw)` returns named scalars; 'loss' is minimised, the others are logged. `draw` counts
        batches from the start of training and is the same after a resume: seed noise with it.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        self.model.train()
        since, since_step, row = time.perf_counter(), self.step, {}
        began, first_step = since, self.step
        while self.step < self.config.steps:
            values = self._step(loss_function)
            last = self.step == self.config.steps
            if last or self.step % self.config.log_every == 0:
                now = time.perf_counter()
                rate = (self.step - since_step) * self.samples_per_step / (now - since)
                since, since_step = now, self.step
                row = self._log(values, rate)
            if last or (self.config.checkpoint_every and self.step % self.config.checkpoint_every == 0):
                self.save()
            self.progress(self.label, self.step, self.config.steps, f"loss {row.get('loss', math.nan):.4f}")
        done = (self.step - first_step) * self.samples_per_step
        self.samples_per_second = done / max(1e-9, time.perf_counter() - began)
        return row or last_row(self.output)

    def save(self) -> Path:
        """Write a checkpoint of this moment."""
        tensors = {
            "model": trainable_tensors(self.model),
            "optimizer": self._optimizer_tensors(),
            "random": _random_states(),
        }
        if self.average is not None:
            tensors["average"] = self.average.state_dict()
        checkpoint = Checkpoint(self.step, tensors, {"batches": self.batches.state_dict()})
        return save_checkpoint(self.output, checkpoint, self.config.keep_checkpoints)

    def _step(self, loss_function: Callable[[Batch, int], Mapping[str, torch.Tensor]]) -> Tensors:
        config = self.config
        rate = learning_rate_at(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total: Tensors = {}
        for part in range(config.accumulate):
            batch = next(self.batches)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                values = loss_function(batch, self.step * config.accumulate + part)
            (values["loss"] / config.accumulate).backward()
            for name, value in values.items():
                total[name] = total.get(name, 0.0) + value.detach() / config.accumulate
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trainable, config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        return total | {"gradient_norm": norm.detach(), "learning_rate": torch.tensor(rate)}

    def _log(self, values: Tensors, samples_per_second: float) -> dict[str, float]:
        row = {"step": self.step} | {name: float(value) for name, value in values.items()}
        if not math.isfinite(row["loss"]):
            raise CheckpointError(
                f"The loss is {row['loss']} at step {self.step}.",
                "Lower learning_rate, or look for broken values in the data (blm doctor).",
            )
        row["samples_per_second"] = round(samples_per_second, 2)
        with (self.output / LOSSES_FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        return row

    def _optimizer_tensors(self) -> Tensors:
        tensors: Tensors = {}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    def _load_optimizer(self, tensors: Tensors) -> None:
        parameters = dict(self.model.named_parameters())
        for label, value in tensors.items():
            key, name = label.split("/", 1)
            parameter = parameters[name]
            # AdamW counts steps in a tensor that fused kernels want on the parameter's device.
            self.optimizer.state[parameter][key] = value.to(parameter.device)


def last_row(output: Path) -> dict[str, float]:
    """The last row of a run's losses.jsonl, or an empty dictionary."""
    path = output / LOSSES_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return json.loads(lines[-1]) if lines else {}


def _random_states() -> Tensors:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda-{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _load_random_states(states: Tensors) -> None:
    torch.set_rng_state(states["cpu"])
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda-{i}" in states:
            torch.cuda.set_rng_state(states[f"cuda-{i}"], i)


def _forget_rows_after(path: Path, step: int) -> None:
    """Drop rows that were logged after the checkpoint: they will be logged again."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step)
    write_atomically(path, kept.encode())
