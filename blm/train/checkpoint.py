"""Checkpoints: safetensors for tensors, JSON for the rest; written beside, flushed, renamed; never unpickled.

RUN/checkpoints/
  latest                     name of the newest complete checkpoint
  step-00000200/
    model.safetensors        trainable parameters and buffers
    average.safetensors      their exponential moving average, where one is kept
    optimizer.safetensors    AdamW moments, by parameter name
    random.safetensors       states of the random number generators
    state.json               step, reader position, sizes; written last
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from blm.schemas.errors import CheckpointError
from blm.schemas.manifest import write_atomically

CHECKPOINTS_FOLDER = "checkpoints"
LATEST_FILE = "latest"
STATE_FILE = "state.json"
CHECKPOINT_VERSION = 1

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Everything an exact resume needs, as named tensors and plain JSON values."""

    step: int
    tensors: Mapping[str, Tensors]
    """File stem ('model', 'average', 'optimizer', 'random') → its tensors."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """JSON-ready: position of the reader and whatever else the caller wants back."""


def trainable_tensors(model: nn.Module) -> Tensors:
    """Copies on the CPU of all trainable parameters and persistent buffers of `model`, by name."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - trainable
    return {name: _detached(value) for name, value in model.state_dict().items() if name not in frozen}


def load_tensors(model: nn.Module, tensors: Tensors, source: str) -> None:
    """Copy named tensors into `model`; frozen parameters keep their values.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; names it and `source`.
    """
    expected = {name: tuple(value.shape) for name, value in trainable_tensors(model).items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise CheckpointError(
                f"{source}: '{name}' has shape {given.get(name, 'none')}; "
                f"the model has {expected.get(name, 'none')}.",
                "Use the configuration the checkpoint was trained with.",
            )
    model.load_state_dict(tensors, strict=False)


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file beside `path`, flush it and rename it."""
    beside = path.with_name(path.name + ".tmp")
    save_file({name: _detached(value) for name, value in tensors.items()}, beside)
    _flush(beside)
    os.replace(beside, path)


def read_tensors(path: Path) -> Tensors:
    """Read a safetensors file to the CPU.

    Raises:
        CheckpointError: missing or damaged; names the file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.", "Is the run complete? Train it again with --resume.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", "Resume from an earlier checkpoint.") from error


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint under `run`, point `latest` at it, and remove all but the newest `keep`."""
    folder = run / CHECKPOINTS_FOLDER
    final = folder / _name(checkpoint.step)
    beside = folder / f".{final.name}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for stem, tensors in checkpoint.tensors.items():
        write_tensors(beside / f"{stem}.safetensors", tensors)
    content = {
        "checkpoint_version": CHECKPOINT_VERSION,
        "step": checkpoint.step,
        "files": sorted(checkpoint.tensors),
        "state": dict(checkpoint.state),
    }
    write_atomically(beside / STATE_FILE, json.dumps(content, indent=1, sort_keys=True).encode())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(beside, final)
    write_atomically(folder / LATEST_FILE, final.name.encode())
    _remove_old(folder, keep, final.name)
    return final


def latest_checkpoint(run: Path) -> Path | None:
    """The folder `latest` points at, or None where the run has no checkpoint yet."""
    pointer = run / CHECKPOINTS_FOLDER / LATEST_FILE
    if not pointer.is_file():
        return None
    return pointer.parent / pointer.read_text(encoding="utf-8").strip()


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        CheckpointError: incomplete, damaged, or of a version this code does not read.
    """
    try:
        content = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint: {error}", "Resume from another."
        ) from error
    if content.get("checkpoint_version") != CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint_version {content.get('checkpoint_version')}; "
            f"this version of blm reads {CHECKPOINT_VERSION}.",
            "Use the version of blm that wrote it.",
        )
    tensors = {stem: read_tensors(folder / f"{stem}.safetensors") for stem in content["files"]}
    return Checkpoint(content["step"], tensors, content["state"])


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _detached(value: torch.Tensor) -> torch.Tensor:
    """A contiguous CPU copy: safetensors refuses tensors that share memory."""
    return value.detach().to("cpu", copy=True).contiguous()


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _remove_old(folder: Path, keep: int, newest: str) -> None:
    complete = sorted(path for path in folder.glob("step-*") if path.is_dir())
    for path in complete[: max(0, len(complete) - max(1, keep))]:
        if path.name != newest:
            shutil.rmtree(path, ignore_errors=True)
