from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from blm.schemas.errors import (
    CheckpointError,
    DatasetError,
    OutputExistsError,
    UnknownNameError,
    UsageError,
)
from blm.schemas.manifest import Mixture, read_manifest
from blm.train import policy as policy_module
from blm.train import stage2
from blm.train.recipes import stage2_config
from blm.train.stage2 import Stage2Config, load_policy, train_stage2, trained_pairs, training_actions
from blm.train.transforms import Transforms
from tests.train.stage2_builds import SIZE, FakeBackbone, make_build, merge, picture, without_training_samples

GOLDEN = Path(__file__).parent / "golden" / "stage2_losses.json"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("splits"), embodiments=("so100", "xarm7"))


@pytest.fixture(autouse=True)
def backbone(monkeypatch: pytest.MonkeyPatch) -> FakeBackbone:
    fake = FakeBackbone()
    for module in (stage2, policy_module):
        monkeypatch.setattr(module, "load_backbone", lambda spec, tap=None, device="cpu": fake)
    return fake


def config(splits: Path, output: Path, **changes: str) -> Stage2Config:
    # Everything that moves a loss is pinned here, so that tuning the recipe does not touch the golden figures.
    small = {
        "policy.draws": "2",
        "policy.future_weight": "0.2",
        "policy.feed_forward": "2",
        "policy.bridge_layers": "1",
        "policy.steps_per_token": "4",
        "learning_rate": "1e-3",
        "weight_decay": "0.01",
        "average_decay": "0.99",
        "policy.width": "32",
        "policy.layers": "2",
        "policy.heads": "2",
        "policy.queries": "4",
        "policy.intent_dropout": "0.1",
        "horizon": "8",
        "batch_size": "8",
        "steps": "4",
        "log_every": "1",
        "checkpoint_every": "2",
    }
    return stage2_config(
        "tiny", small | {k.replace("__", "."): v for k, v in changes.items()}, splits=splits, output=output
    )


def losses(run: Path) -> list[tuple[float, ...]]:
    lines = map(json.loads, (run / "losses.jsonl").read_text().splitlines())
    return [(row["step"], row["loss"], row["future_loss"], row["gradient_norm"]) for row in lines]


@pytest.fixture(scope="module")
def trained(splits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps; read only."""
    output = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage2, "load_backbone", lambda spec, tap=None, device="cpu": FakeBackbone())
        train_stage2(config(splits, output))
    return output


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


MIXTURE = {"so100_train/so100/push-cube": 0.8, "xarm7_train/xarm7/push-cube": 0.2}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, 0.8),
        ({"mixture": '{"*/xarm7/*": 3, "*": 1}'}, 0.25),
        ({"mixture.*/so100/*": "1", "mixture.*": "0"}, 1.0),
        ({"mixture": "natural"}, 0.5),
    ],
)
def test_windows_are_drawn_in_the_shares_of_the_splits_or_in_those_asked_for(
    asked: dict[str, str], expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted over all that a run learns from; an epoch has as many windows of either robot."""
    build = make_build(tmp_path / "splits", embodiments=("so100", "xarm7"))
    stored = read_manifest(build).model_copy(
        update={"mixture": Mixture(strategy="explicit", weights=MIXTURE)}
    )
    stored.write(build)
    drawn: list[np.ndarray] = []
    encode = Transforms.encode_state

    def watch(self: Transforms, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        drawn.append(embodiment)
        return encode(self, state, embodiment)

    monkeypatch.setattr(Transforms, "encode_state", watch)
    train_stage2(config(build, tmp_path / "run", steps="13", validation_windows="0", **asked))
    robots = np.concatenate(drawn)
    assert len(robots) == 13 * 8
    assert (robots == 0).mean() == pytest.approx(expected, abs=0.03)


def test_validation_leaves_out_robots_that_no_training_sample_shows(splits: Path, tmp_path: Path) -> None:
    held = make_build(tmp_path / "held", embodiments=("so100", "xarm7"))
    without_training_samples(held, "xarm7")
    summary = train_stage2(config(held, tmp_path / "run", steps="1"))
    both = train_stage2(config(splits, tmp_path / "both", steps="1"))
    assert 0 < summary.validation["windows"] < both.validation["windows"]


def test_what_is_held_out_may_lack_the_cameras_that_training_looks_through(tmp_path: Path) -> None:
    held = make_build(tmp_path / "held", embodiments=("so100",), cameras=("top",), splits=("train",))
    other = make_build(tmp_path / "other", embodiments=("so100",), cameras=("front",), splits=("val",))
    merge(held, other)
    summary = train_stage2(config(held, tmp_path / "run", steps="1"))
    assert summary.validation == {}


def test_a_mixture_of_what_is_not_there_is_named(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"mixture group '\*/panda/\*' not found"):
        train_stage2(config(splits, tmp_path / "run", mixture='{"*/panda/*": 1, "*": 1}'))


def test_a_resumed_run_keeps_its_mixture(splits: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match="was trained with mixture = None, not 'natural'"):
        train_stage2(config(splits, run, mixture="natural", resume="true"))


def test_a_run_is_complete(splits: Path, run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {
        "config.json", "policy.json", "policy.safetensors", "average.safetensors", "transforms.json",
        "losses.jsonl", "summary.json", "checkpoints",
    } <= names  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 4
    assert summary["validation"]["action_error"] > 0
    assert trained_pairs(run) == (("so100", "push-cube"), ("xarm7", "push-cube"))
    actions = training_actions(run, "xarm7", "push-cube")
    assert [a.shape for a in actions] == [(12, 8), (13, 8), (14, 8), (12, 8)]


def test_killed_and_resumed_equals_uninterrupted(splits: Path, run: Path, tmp_path: Path) -> None:
    def kill(label: str, done: int, total: int, note: str = "") -> None:
        if label == "training" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stage2(config(splits, tmp_path / "again", workers="2"), kill)
    with pytest.raises(OutputExistsError, match="--resume"):
        train_stage2(config(splits, tmp_path / "again"))
    with pytest.raises(CheckpointError, match=r"batch_size = 8, not 4"):
        train_stage2(config(splits, tmp_path / "again", batch_size="4", resume="true"))
    train_stage2(config(splits, tmp_path / "again", resume="true"))
    assert losses(tmp_path / "again") == losses(run)
    weights = [(folder / "average.safetensors").read_bytes() for folder in (run, tmp_path / "again")]
    assert weights[0] == weights[1]


def test_ten_steps_give_the_golden_losses(splits: Path, tmp_path: Path) -> None:
    train_stage2(config(splits, tmp_path / "run", steps="10"))
    found = losses(tmp_path / "run")
    expected = json.loads(GOLDEN.read_text())
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=2e-3)


def test_live_intent_equals_cached_intent(
    splits: Path, run: Path, tmp_path: Path, backbone: FakeBackbone
) -> None:
    backbone.calls = 0
    train_stage2(config(splits, tmp_path / "live", intent_cache="false", validation_windows="0"))
    assert backbone.calls == 8  # now and future, four steps
    # The cache holds eight bits per value.
    np.testing.assert_allclose(np.array(losses(tmp_path / "live")), np.array(losses(run)), rtol=0.02)
    backbone.calls = 0
    train_stage2(config(splits, tmp_path / "cached"))
    assert backbone.calls == 0


def test_the_policy_replans_every_execute_ticks_and_repeats_after_reset(
    run: Path, backbone: FakeBackbone
) -> None:
    policy = load_policy(run, execute=3)
    assert policy.image_size == (SIZE, SIZE)
    images, state = {"top": picture(np.array([0.2, 0.7])), "side": np.zeros(1)}, np.linspace(-10, 20, 8)

    def episode() -> np.ndarray:
        policy.reset("xarm7")
        return np.stack([policy.act(images, state, "push the cube") for _ in range(7)])

    backbone.calls = 0
    first = episode()
    assert backbone.calls == 3
    assert first.shape == (7, 8)
    assert np.array_equal(first, episode())
    policy.reset("xarm7")
    np.testing.assert_allclose(first[:3], policy.plan(images, state, "push the cube")[:3], rtol=1e-5)
    policy.reset("so100")
    assert policy.act(images, state[:6], "push the cube").shape == (6,)


def test_overlapping_chunks_are_averaged(run: Path) -> None:
    policy = load_policy(run, execute=1, ensemble=0.0)
    images, state = {"top": picture(np.array([0.5, 0.5]))}, np.zeros(6)
    chunks = [policy.plan(images, state, "push the cube") for _ in range(3)]
    policy.reset("so100")
    acted = [policy.act(images, state, "push the cube") for _ in range(3)]
    np.testing.assert_allclose(
        acted[2], (chunks[0][2] + chunks[1][1] + chunks[2][0]) / 3, rtol=1e-5, atol=1e-5
    )


def test_a_policy_trained_at_half_the_rate_moves_in_halves(run: Path) -> None:
    path = run / "transforms.json"
    content = json.loads(path.read_text())
    for each in content["embodiments"]:
        each["rate_hz"] /= 2
    path.write_text(json.dumps(content))
    policy = load_policy(run)
    images, state = {"top": picture(np.array([0.5, 0.5]))}, np.zeros(6)
    policy.reset("so100")
    chunk = policy.plan(images, state, "push the cube")
    policy.reset("so100")
    acted = [policy.act(images, state, "push the cube") for _ in range(4)]
    expected = [chunk[0] / 2, chunk[0], (chunk[0] + chunk[1]) / 2, chunk[1]]
    np.testing.assert_allclose(acted, expected, atol=1e-5)


def test_what_does_not_fit_the_policy_is_named(run: Path, backbone: FakeBackbone) -> None:
    policy = load_policy(run)
    images, state = {"top": picture(np.array([0.5, 0.5]))}, np.zeros(6)
    policy.reset("so100")
    with pytest.raises(UnknownNameError, match="so100, xarm7"):
        policy.reset("panda")
    with pytest.raises(UnknownNameError, match="camera 'top' not found; there are: side"):
        policy.plan({"side": images["top"]}, state, "push")
    with pytest.raises(UsageError, match=r"trained on \(32, 32, 3\)"):
        policy.plan({"top": np.zeros((64, 64, 3), np.uint8)}, state, "push")
    with pytest.raises(UsageError, match="6 axes"):
        policy.plan(images, np.zeros(7), "push")
    with pytest.raises(UsageError, match=r"within 1\.\.8"):
        load_policy(run, execute=9)
    backbone.fingerprint = "another"
    with pytest.raises(CheckpointError, match="another backbone"):
        load_policy(run)


def test_an_unfinished_run_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no policy\.json"):
        load_policy(tmp_path)


def test_pictures_of_several_sizes_are_refused_before_any_work(
    backbone: FakeBackbone, tmp_path: Path
) -> None:
    build = make_build(tmp_path / "splits")
    shard, size = build / "train-so100-00000.tar", f'"image_size":[{SIZE},{SIZE}]'.encode()
    assert size in shard.read_bytes()
    shard.write_bytes(shard.read_bytes().replace(size, size.replace(b"[3", b"[6"), 1))
    with pytest.raises(DatasetError, match=r"of several sizes: 32 × 32, 62 × 32\..*--image-size"):
        train_stage2(config(build, tmp_path / "run"))
    assert backbone.calls == 0


def test_a_run_that_never_began_does_not_stand_in_the_way(splits: Path, tmp_path: Path) -> None:
    for wrong in ({"cameras": "[side]"}, {"device": "abacus"}):
        with pytest.raises(UsageError):
            train_stage2(config(splits, tmp_path / "run", **wrong))
    train_stage2(config(splits, tmp_path / "run", steps="1"))
    with pytest.raises(OutputExistsError):
        train_stage2(config(splits, tmp_path / "run", steps="1"))


def test_cameras_that_are_not_there_are_named(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="camera 'side' not found; there are: top"):
        train_stage2(config(splits, tmp_path / "run", cameras="[side]"))
