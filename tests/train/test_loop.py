from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from blm.schemas.errors import CheckpointError
from blm.train.checkpoint import Checkpoint, latest_checkpoint, load_tensors, read_checkpoint, save_checkpoint
from blm.train.loop import LOSSES_FILE, LoopConfig, TrainLoop, learning_rate_at
from blm.train.shard_reader import EpochOrder


class Points:
    """Batches of a line with noise, in a resumable order."""

    def __init__(self, batch_size: int = 8) -> None:
        x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        self.x, self.y = (
            torch.from_numpy(x),
            torch.from_numpy(x @ np.array([[1.0], [-2.0], [0.5]], np.float32)),
        )
        self.order = EpochOrder(50, batch_size, seed=0)

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.from_numpy(next(self.order))
        return self.x[indices], self.y[indices]

    def state_dict(self) -> dict[str, int]:
        return self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.order.load_state_dict(state)


def make_loop(output: Path, progress=None, batch_size: int = 8, **changes) -> tuple[TrainLoop, nn.Sequential]:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    config = LoopConfig.model_validate(
        {"steps": 6, "learning_rate": 1e-2, "log_every": 1, "average_decay": 0.9, "checkpoint_every": 2}
        | changes
    )
    loop = TrainLoop(
        model, Points(batch_size), config, output, samples_per_batch=batch_size, progress=progress
    )
    return loop, model


def loss_of(model: nn.Module):
    def loss(batch: tuple[torch.Tensor, torch.Tensor], draw: int) -> dict[str, torch.Tensor]:
        x, y = batch
        return {"loss": (model(x) - y).square().mean()}

    return loss


def rows(output: Path) -> list[dict[str, float]]:
    lines = (output / LOSSES_FILE).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "samples_per_second"} for line in lines]


class KilledError(Exception):
    pass


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    straight, straight_model = make_loop(tmp_path / "straight")
    straight.run(loss_of(straight_model))

    def kill(label: str, done: int, total: int, note: str = "") -> None:
        if done == 3:
            raise KilledError

    first, model = make_loop(tmp_path / "resumed", kill)
    with pytest.raises(KilledError):
        first.run(loss_of(model))
    assert [row["step"] for row in rows(tmp_path / "resumed")] == [1, 2, 3]
    second, model = make_loop(tmp_path / "resumed")
    assert second.resume()
    assert second.step == 2
    second.run(loss_of(model))
    assert rows(tmp_path / "resumed") == rows(tmp_path / "straight")
    for mine, theirs in zip(model.parameters(), straight_model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert straight.average is not None
    assert second.average is not None
    averages = straight.average.state_dict(), second.average.state_dict()
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert not make_loop(tmp_path)[0].resume()


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    large, large_model = make_loop(tmp_path / "a", batch_size=16, steps=3)
    small, small_model = make_loop(tmp_path / "b", batch_size=8, steps=3, accumulate=2)
    for loop, model in ((large, large_model), (small, small_model)):
        model[1] = nn.Identity()
        loop.run(loss_of(model))
    for mine, theirs in zip(large_model.parameters(), small_model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_rate_rises_then_falls() -> None:
    config = LoopConfig(steps=100, learning_rate=1.0, warmup=0.1, final_rate=0.1)
    rates = [learning_rate_at(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_vectors_are_not_decayed(tmp_path: Path) -> None:
    loop, model = make_loop(tmp_path, weight_decay=0.3)
    decays = {id(p): group["weight_decay"] for group in loop.optimizer.param_groups for p in group["params"]}
    assert {decays[id(p)] for p in model.parameters() if p.ndim == 1} == {0.0}
    assert {decays[id(p)] for p in model.parameters() if p.ndim == 2} == {0.3}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    loop, model = make_loop(tmp_path)
    with pytest.raises(CheckpointError, match="loss is nan at step 1"):
        loop.run(lambda batch, draw: {"loss": model(batch[0]).mean() * float("nan")})


def test_old_checkpoints_go_and_the_newest_stays(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, Checkpoint(step, {"model": {"w": torch.full((2,), float(step))}}), keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == [
        "step-00000002",
        "step-00000003",
    ]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert read_checkpoint(newest).tensors["model"]["w"].tolist() == [3.0, 3.0]


def test_damaged_and_unfitting_checkpoints_say_so(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, Checkpoint(1, {"model": {"w": torch.zeros(2)}}))
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_checkpoint(folder)
    (folder / "state.json").unlink()
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        read_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"'weight' has shape \(2, 2\); the model has \(1, 2\)"):
        load_tensors(nn.Linear(2, 1, bias=False), {"weight": torch.zeros(2, 2)}, "here")


def test_a_frozen_part_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    loop, model = make_loop(tmp_path)
    model[0].requires_grad_(False)
    folder = loop.save()
    assert set(read_checkpoint(folder).tensors["model"]) == {"2.weight", "2.bias"}
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    load_tensors(model, read_checkpoint(folder).tensors["model"], "here")
