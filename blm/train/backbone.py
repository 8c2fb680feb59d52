"""The frozen multimodal LLM of Stage II: images and an instruction in, H_k (the intent tokens) out.

One adapter covers the Qwen2-VL family (Qwen2-VL, Qwen2.5-VL, Qwen3-VL), from the built-in `tiny` to a model of the
Hugging Face hub. It runs the vision tower and the first k blocks of the language model and stops there: blocks
after k, the final norm and `lm_head` are dropped, so neither their time nor their memory is spent.

The prompt is one user turn, images first, then the instruction, then the opening of the assistant's turn. Attention
is causal, so the image tokens do not depend on the wording, and the text tokens see everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from blm.schemas.errors import CheckpointError, ConfigError, MissingExtraError, UsageError

SUPPORTED_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
PROMPT_VERSION = 1


@dataclass(frozen=True)
class IntentTokens:
    """H_k for a batch of B frames, L tokens each (right-padded), d wide.

    Attributes:
        hidden: (B, L, d) float32; zero where padded.
        mask: (B, L) bool, True for a real token.
        segment: (B, L) int64: 0 = text, 1 + i = image of camera i.
        position: (B, L, 2) float32: (row, column) of the token's centre in its image, 0..1 from the upper left; for
            text (0, index / number of real tokens).
    """

    hidden: torch.Tensor
    mask: torch.Tensor
    segment: torch.Tensor
    position: torch.Tensor

    def to(self, device: torch.device | str) -> IntentTokens:
        return replace(
            self,
            hidden=self.hidden.to(device),
            mask=self.mask.to(device),
            segment=self.segment.to(device),
            position=self.position.to(device),
        )


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of one prompt are: ids (L,), and `segment`, `position` as in IntentTokens, without batch."""

    ids: torch.Tensor
    segment: torch.Tensor
    position: torch.Tensor


class IntentEncoder(Protocol):
    """What the intent cache asks of a backbone; see Backbone."""

    @property
    def width(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def intent(self, images: np.ndarray, instructions: Sequence[str]) -> IntentTokens: ...


class Backbone:
    """A frozen MLLM that stops after block `tap`.

    Attributes:
        width: d, the width of H_k.
        tap: k; H_k is what block k + 1 would see: block k's output, to which Qwen3-VL's first blocks add features of
            the vision tower (DeepStack). k = depth gives what `lm_head` would see, after the final norm.
        depth: the number of blocks that the whole model has.
        name: what it was loaded from.
        device: where it runs.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, tap: int | None, device: str) -> None:
        family = model.config.model_type
        if family not in SUPPORTED_FAMILIES:
            raise ConfigError(
                f"backbone '{name}' is of the family '{family}', which blm cannot tap.",
                f"Supported: {', '.join(SUPPORTED_FAMILIES)}.",
            )
        self.name = name
        self.device = torch.device(device)
        self.depth = len(model.model.language_model.layers)
        self.tap = max(1, self.depth // 2) if tap is None else tap
        if not 1 <= self.tap <= self.depth:
            raise ConfigError(
                f"tap {self.tap}: backbone '{name}' has {self.depth} blocks.",
                f"Give a value from 1 to {self.depth}.",
            )
        self._width: int = model.config.text_config.hidden_size
        self._processor = processor
        self._config = model.config
        self._model = _shortened(model, self.tap).to(self.device)
        self._layouts: dict[tuple[str, int, int, int], TokenLayout] = {}

    @property
    def width(self) -> int:
        return self._width

    def intent(self, images: np.ndarray, instructions: Sequence[str]) -> IntentTokens:
        """H_k of a batch of frames.

        Args:
            images: (B, cameras, height, width, 3) uint8 RGB.
            instructions: B wordings.

        Raises:
            UsageError: the shapes do not fit.
        """
        if images.ndim != 5 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UsageError(
                f"images are {images.dtype} of shape {images.shape}, not uint8 (B, cameras, height, width, 3)."
            )
        frames, cameras = images.shape[:2]
        if len(instructions) != frames:
            raise UsageError(f"{frames} frames, but {len(instructions)} instructions.")
        pixels, grid = self.pixel_values(images.reshape(frames * cameras, *images.shape[2:]))
        rows, columns = (side // self._merge for side in grid[1:].tolist())
        layouts = [self.layout(text, cameras, rows, columns) for text in instructions]
        ids, mask, segment, position = _padded(layouts, self._pad_id)
        with torch.inference_mode():
            hidden = self._model(
                input_ids=ids.to(self.device),
                mm_token_type_ids=(segment > 0).int().to(self.device),
                pixel_values=pixels,
                image_grid_thw=grid.expand(frames * cameras, 3).to(self.device),
                use_cache=False,
            ).last_hidden_state
        mask = mask.to(self.device)
        # A clone made outside inference mode can be used in autograd, which trainable modules downstream need.
        hidden = hidden.float().clone().masked_fill_(~mask[..., None], 0.0)
        return IntentTokens(hidden, mask, segment.to(self.device), position.to(self.device))

    def pixel_values(self, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model's own image processor makes of (N, height, width, 3) uint8 images of one size, but faster.

        Returns:
            Patches (N · grid rows · grid columns, channels · temporal · patch²) on the device, and the grid
            (time, rows, columns) in patches, which is the same for all images.
        """
        settings = self._processor.image_processor
        patch, merge, times = settings.patch_size, settings.merge_size, settings.temporal_patch_size
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2)
        pixels = _resized(pixels, settings)
        count, channels, height, width = pixels.shape
        rows, columns = height // patch, width // patch
        blocks = pixels.reshape(
            count, channels, rows // merge, merge, patch, columns // merge, merge, patch
        ).permute(0, 2, 5, 3, 6, 1, 4, 7)
        flat = blocks.reshape(count * rows * columns, channels, 1, patch * patch).float()
        mean = torch.tensor(settings.image_mean, device=self.device).view(1, channels, 1, 1)
        std = torch.tensor(settings.image_std, device=self.device).view(1, channels, 1, 1)
        flat.mul_(settings.rescale_factor / std).sub_(mean / std)
        patches = flat.expand(-1, -1, times, -1).reshape(count * rows * columns, -1)
        return patches.to(self._model.dtype), torch.tensor([1, rows, columns])

    def layout(self, instruction: str, cameras: int, rows: int, columns: int) -> TokenLayout:
        """The prompt for `cameras` images of `rows` × `columns` tokens each, and where its tokens are."""
        key = (instruction, cameras, rows, columns)
        if key not in self._layouts:
            self._layouts[key] = self._new_layout(*key)
        return self._layouts[key]

    def _new_layout(self, instruction: str, cameras: int, rows: int, columns: int) -> TokenLayout:
        token = self._processor.image_token
        prompt = self._prompt(instruction, cameras).replace(token, token * (rows * columns))
        ids = torch.tensor(self._processor.tokenizer(prompt)["input_ids"])
        is_image = ids == self._config.image_token_id
        if int(is_image.sum()) != cameras * rows * columns:
            raise UsageError(
                f"the instruction {instruction!r} holds the image token {token}.", "Leave it out."
            )
        segment = torch.zeros_like(ids)
        segment[is_image] = 1 + torch.arange(cameras).repeat_interleave(rows * columns)
        position = torch.stack([torch.zeros(len(ids)), torch.arange(len(ids)) / len(ids)], dim=1)
        centres = torch.cartesian_prod(
            (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
        )
        position[is_image] = centres.repeat(cameras, 1)
        return TokenLayout(ids, segment, position)

    def _prompt(self, instruction: str, cameras: int) -> str:
        content: list[dict[str, str]] = [{"type": "image"} for _ in range(cameras)]
        content.append({"type": "text", "text": instruction})
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )

    @property
    def _merge(self) -> int:
        return self._processor.image_processor.merge_size

    @property
    def _pad_id(self) -> int:
        tokenizer = self._processor.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that H_k depends on: weights up to k, k, processor, prompt, dtype, library."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        import transformers

        facts = {
            "weights": _weights_digest(self._model),
            "tap": self.tap,
            "family": self._config.model_type,
            "rope": _rope_settings(self._config),
            "image": _image_settings(self._processor.image_processor),
            "tokenizer": _digest(self._processor.tokenizer.backend_tokenizer.to_str().encode()),
            "prompt": [PROMPT_VERSION, self._prompt("push the cube", 2)],
            "dtype": str(self._model.dtype),
            "transformers": transformers.__version__,
        }
        return _digest(json.dumps(facts, sort_keys=True).encode())


def load_backbone(spec: str, *, tap: int | None = None, device: str = "cpu") -> Backbone:
    """Load a backbone, frozen, stopping after block `tap` (default: half the depth).

    Args:
        spec: `tiny` (built in), a folder in Hugging Face form, or a hub id.

    Raises:
        CheckpointError: nothing usable there.
        ConfigError: a family that blm does not support, or a tap outside the model.
        MissingExtraError: transformers is not installed.
    """
    model, processor = load_model_and_processor(spec)
    return Backbone(model, processor, name=spec, tap=tap, device=device)


def load_model_and_processor(spec: str) -> tuple[Any, Any]:
    """The whole model (weights in their stored type) and its processor, as `load_backbone` finds them."""
    try:
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise MissingExtraError("transformers", "train") from error
    # The bars of loading and saving shards say nothing here; downloads keep theirs.
    disable_progress_bar()
    if spec == "tiny":
        from blm.train.tiny import build_tiny

        return build_tiny()
    if spec == "smol":
        raise ConfigError(
            "backbone 'smol' is not part of this version.",
            "Use 'tiny', a folder in Hugging Face form, or a hub id.",
        )
    if Path(spec).is_dir() and not (Path(spec) / "config.json").is_file():
        raise CheckpointError(
            f"{spec} holds no config.json, so it is no model in Hugging Face form.",
            "Give the folder `backbone` of a Stage I run.",
        )
    try:
        family = AutoConfig.from_pretrained(spec).model_type
        if family not in SUPPORTED_FAMILIES:
            raise ConfigError(
                f"backbone '{spec}' is of the family '{family}', which blm cannot tap.",
                f"Supported: {', '.join(SUPPORTED_FAMILIES)}.",
            )
        return (
            AutoModelForImageTextToText.from_pretrained(spec, dtype="auto", use_safetensors=True).eval(),
            AutoProcessor.from_pretrained(spec),
        )
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"backbone '{spec}' cannot be loaded: {first_line}",
            "Give 'tiny', a folder in Hugging Face form, or a hub id that this machine can reach.",
        ) from error


class _PatchProjection(nn.Module):
    """The patch embedding's convolution as a matrix product: its kernel equals its stride, and this is far faster."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


def _shortened(model: Any, tap: int) -> Any:
    """The base model without what comes after block `tap`, frozen, in eval mode."""
    base = model.model
    language_model = base.language_model
    if tap < len(language_model.layers):
        language_model.layers = language_model.layers[:tap]
        language_model.norm = nn.Identity()
    patch_embed = base.visual.patch_embed
    if isinstance(patch_embed.proj, nn.Conv3d):
        patch_embed.proj = _PatchProjection(patch_embed.proj)
    return base.eval().requires_grad_(False)


def _resized(pixels: torch.Tensor, settings: Any) -> torch.Tensor:
    from transformers.image_utils import SizeDict
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    factor = settings.patch_size * settings.merge_size
    least, most = settings.size["shortest_edge"], settings.size["longest_edge"]
    target = smart_resize(pixels.shape[2], pixels.shape[3], factor, least, most)
    if target == tuple(pixels.shape[2:]):
        return pixels
    size = SizeDict(shortest_edge=least, longest_edge=most)
    return settings.resize(images=pixels, size=size, resample=settings.resample, factor=factor)


def _padded(
    layouts: Sequence[TokenLayout], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack layouts, padded on the right; under causal attention real tokens never see the padding."""
    count, longest = len(layouts), max(len(layout.ids) for layout in layouts)
    ids = torch.full((count, longest), pad_id)
    mask = torch.zeros((count, longest), dtype=torch.bool)
    segment = torch.zeros((count, longest), dtype=torch.int64)
    position = torch.zeros((count, longest, 2))
    for row, layout in enumerate(layouts):
        length = len(layout.ids)
        ids[row, :length] = layout.ids
        mask[row, :length] = True
        segment[row, :length] = layout.segment
        position[row, :length] = layout.position
    return ids, mask, segment, position


def _weights_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def _rope_settings(config: Any) -> dict[str, Any]:
    return {
        "text": getattr(config.text_config, "rope_parameters", None),
        "vision": getattr(config.vision_config, "rope_parameters", None),
        "windows": [
            getattr(config.vision_config, "window_size", None),
            list(getattr(config.vision_config, "fullatt_block_indexes", ())),
        ],
    }


def _image_settings(processor: Any) -> dict[str, Any]:
    size = processor.size
    return {
        "class": type(processor).__name__,
        "size": [size["shortest_edge"], size["longest_edge"]],
        "resample": int(processor.resample),
        "rescale_factor": processor.rescale_factor,
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "patch": [processor.patch_size, processor.merge_size, processor.temporal_patch_size],
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
