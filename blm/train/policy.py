"""A trained policy at work: images, measured state and an instruction in, axis targets out.

Every `execute` steps it looks, samples a chunk of `horizon` targets and plays the first `execute` of them (receding
horizon). With `ensemble`, chunks that overlap are averaged per step (Zhao et al. 2023, "temporal ensembling").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import BlmError, CheckpointError, UnknownNameError, UsageError
from blm.schemas.yaml_model import FrozenModel, validate
from blm.train.backbone import Backbone, load_backbone
from blm.train.checkpoint import load_tensors, read_tensors
from blm.train.flow_matching import FlowPolicy, PolicyConfig, PolicyShape
from blm.train.transforms import Transforms, read_transforms

POLICY_FILE = "policy.json"
WEIGHTS_FILE = "policy.safetensors"
AVERAGE_FILE = "average.safetensors"


class BackboneReference(FrozenModel):
    """The frozen backbone a policy was trained on: referred to, not copied, and checked when loaded."""

    spec: str
    tap: int
    fingerprint: str


class PolicyCard(FrozenModel):
    """What `policy.json` holds: all that is needed to use the weights beside it."""

    config: PolicyConfig
    shape: PolicyShape
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    pairs: tuple[tuple[str, str], ...]
    splits: Path
    backbone: BackboneReference


class Policy:
    """A policy that drives one robot at a time.

    Attributes:
        cameras: names of the cameras it looks through.
        image_size: (width, height) in pixels that it was trained on.
        embodiments: names of the robots that it can drive.
        horizon: steps in a chunk.
    """

    def __init__(
        self,
        model: FlowPolicy,
        transforms: Transforms,
        backbone: Backbone,
        card: PolicyCard,
        *,
        execute: int = 8,
        ensemble: float | None = None,
        seed: int = 0,
    ) -> None:
        if not 1 <= execute <= card.shape.horizon:
            raise UsageError(f"execute is {execute}; it must be within 1..{card.shape.horizon}, the horizon.")
        self.card, self.cameras, self.image_size = card, card.cameras, card.image_size
        self.embodiments, self.horizon = transforms.names, card.shape.horizon
        self.execute, self.ensemble, self.seed = execute, ensemble, seed
        self._model, self._transforms, self._backbone = model.eval(), transforms, backbone
        self._device = next(model.parameters()).device
        self.reset(self.embodiments[0])

    def reset(self, embodiment: str | None = None) -> None:
        """Begin a new episode, on another robot if given; the same episode then gets the same noise again.

        Raises:
            UnknownNameError: the policy was not trained on that robot.
        """
        if embodiment is not None:
            self._embodiment = self._transforms.index(embodiment)
            self._ticks_per_step = self._ticks(embodiment)
        self._generator = torch.Generator().manual_seed(self.seed)
        self._chunks: list[tuple[int, np.ndarray]] = []
        self._tick = 0
        self._from = np.zeros(0)
        self._target = np.zeros(0)

    def act(self, images: Mapping[str, np.ndarray], state: np.ndarray, instruction: str) -> np.ndarray:
        """Axis targets (A,) in axis units for this control tick.

        Args:
            images: camera name → (H, W, 3) uint8 RGB; only those in `cameras` are looked at, and only when a new
                chunk is due.
            state: (A,) measured axis values, axis units.
            instruction: the task in words.

        Where the policy was trained on every n-th control tick, the n ticks of a step go to its target in a line.
        """
        step, part = divmod(self._tick, self._ticks_per_step)
        if part == 0:
            if step % self.execute == 0:
                self._chunks.append((step, self.plan(images, state, instruction)))
                self._chunks = [chunk for chunk in self._chunks if step - chunk[0] < self.horizon]
            self._from = self._target if len(self._target) else np.array(state, dtype=np.float32)
            self._target = self._at(step)
        self._tick += 1
        along = (part + 1) / self._ticks_per_step
        return self._from + along * (self._target - self._from)

    def plan(self, images: Mapping[str, np.ndarray], state: np.ndarray, instruction: str) -> np.ndarray:
        """One sampled chunk, (horizon, A), axis units.

        Raises:
            UnknownNameError: a camera is missing.
            UsageError: an image is of another size than in training, or the state of another length.
        """
        axes = len(self._transforms.embodiments[self._embodiment].axis_names)
        if np.shape(state) != (axes,):
            raise UsageError(f"the state has shape {np.shape(state)}; this robot has {axes} axes.")
        stacked = np.stack([self._image(images, camera) for camera in self.cameras])[None]
        intent = self._backbone.intent(stacked, [instruction])
        padded = self._transforms.pad(np.asarray(state)[None])
        embodiment = np.array([self._embodiment])
        noise = torch.randn(1, self.horizon, self._transforms.axes, generator=self._generator)
        chunk = self._model.sample(
            intent.to(self._device),
            torch.from_numpy(self._transforms.encode_state(padded, embodiment)).to(self._device),
            torch.from_numpy(embodiment).to(self._device),
            noise=noise,
            limit=self._transforms.clip,
        )
        decoded = self._transforms.decode_action(chunk.cpu().numpy(), padded, embodiment)
        return self._transforms.cut(decoded[0], self._embodiment)

    def _at(self, step: int) -> np.ndarray:
        """The target of a step: the newest chunk's, or an average that favours older chunks by `ensemble`."""
        values = [chunk[step - first] for first, chunk in self._chunks]
        if self.ensemble is None:
            return values[-1]
        weights = np.exp(-self.ensemble * np.arange(len(values)))
        return np.average(values, axis=0, weights=weights).astype(np.float32)

    def _image(self, images: Mapping[str, np.ndarray], camera: str) -> np.ndarray:
        if camera not in images:
            raise UnknownNameError("camera", camera, images)
        width, height = self.image_size
        if images[camera].shape != (height, width, 3):
            raise UsageError(
                f"camera '{camera}' gives images of shape {images[camera].shape}; "
                f"the policy was trained on {(height, width, 3)}.",
                "Set the camera to that size.",
            )
        return images[camera]

    def _ticks(self, embodiment: str) -> int:
        """Control ticks per step of the training data."""
        trained = self._transforms.embodiments[self._embodiment].rate_hz
        return max(1, round(load_embodiment(embodiment).control_rate_hz / trained))


def load_policy(
    run: Path | str, device: str = "cpu", *, execute: int = 8, ensemble: float | None = None, seed: int = 0
) -> Policy:
    """Load a finished Stage II run, averaged weights.

    Args:
        run: folder of the run.
        device: where to run it.
        execute: steps of each chunk to play before looking again.
        ensemble: decay per chunk of temporal ensembling (0.01 is usual); None = newest chunk only.
        seed: of the sampling noise.

    Raises:
        CheckpointError: the run is incomplete, or its backbone is not the one it was trained on.
    """
    folder = Path(run)
    card = read_card(folder)
    backbone = load_backbone(card.backbone.spec, tap=card.backbone.tap, device=device)
    if backbone.fingerprint != card.backbone.fingerprint:
        raise CheckpointError(
            f"{folder} was trained on another backbone than '{card.backbone.spec}' is now "
            f"(fingerprint {card.backbone.fingerprint[:12]}…, found {backbone.fingerprint[:12]}…).",
            "Restore that backbone (and the transformers version), or train Stage II again.",
        )
    model = FlowPolicy(card.config, card.shape)
    load_tensors(model, read_tensors(folder / AVERAGE_FILE), str(folder / AVERAGE_FILE))
    return Policy(
        model.to(device),
        read_transforms(folder),
        backbone,
        card,
        execute=execute,
        ensemble=ensemble,
        seed=seed,
    )


def read_card(run: Path) -> PolicyCard:
    """Read `policy.json` of a run.

    Raises:
        CheckpointError: it is missing or not readable: `run` is no finished Stage II run.
    """
    path = run / POLICY_FILE
    if not run.is_dir():
        raise CheckpointError(
            f"{run} is not a folder.", "Give the folder of a run: blm train stage2 … --output RUN"
        )
    try:
        return validate(PolicyCard, json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        raise CheckpointError(
            f"{run} is no finished run of stage 2: it has no {POLICY_FILE}.",
            "Finish it with: blm train stage2 … --resume",
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, BlmError) as error:
        raise CheckpointError(f"{path} is not readable: {error}", "Train the run again.") from error
