"""The `tiny` backbone: a Qwen2.5-VL of about two million parameters, built here, that runs on one CPU core.

It is the real transformers class with a small configuration, so everything that works on it works on the large
models: the same processor, chat template, forward pass and file format. Nothing is downloaded and no trained
weights are shipped. Its weights come from a fixed seed, but not from the usual N(0, 0.02): the patch embedding is
a low-frequency cosine basis and the merger starts as a nearly linear map, so that the frozen, untrained features
keep what is seen where. `docs/log.md` has the figures.
"""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, ProcessorMixin

IMAGE_SIZE = 128
PATCH_SIZE = 8
MERGE_SIZE = 2
TEMPORAL_PATCH_SIZE = 2
VOCABULARY_SIZE = 1536

VISION_WIDTH = 96
VISION_DEPTH = 1
VISION_HEADS = 2
TEXT_WIDTH = 192
TEXT_DEPTH = 4
TEXT_HEADS = 3

COEFFICIENTS = 30
PATCH_GAIN = 0.25 / TEMPORAL_PATCH_SIZE
BRANCH_GAIN = 0.3

WEIGHT_GRID = 4096

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>' -}}"
    "{%- endgeneration -%}"
    "{{- '\n' -}}"
    "{%- else -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
"""Qwen's turns, without its default system message (which would cost every frame a dozen tokens)."""


def build_tiny(seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The tiny model (fp32, CPU, eval mode) and its processor; the same seed gives the same weights."""
    processor = tiny_processor()
    return tiny_model(processor.tokenizer, seed), processor


def save_tiny(folder: Path, seed: int = 0) -> None:
    """Write the tiny model and processor in Hugging Face form."""
    model, processor = build_tiny(seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of Qwen's kind, trained on `tiny_text.txt`; always the same."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import Qwen2Tokenizer

    text = files("blm.train").joinpath("tiny_text.txt").read_text(encoding="utf-8")
    blank = Qwen2Tokenizer()
    learner = Tokenizer(models.BPE())
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    learner.train_from_iterator(
        text.splitlines() + text.split(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE,
            min_frequency=1,
            show_progress=False,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=_byte_alphabet(),
        ),
    )
    learned = _as_json(learner)["model"]
    merges: Any = [tuple(pair) for pair in learned["merges"]]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=4096,
        padding_side="right",
    )


def tiny_processor() -> ProcessorMixin:
    """Tokenizer, image and video processor in one, with images brought to 128 × 128 = 8 × 8 tokens."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = IMAGE_SIZE * IMAGE_SIZE
    geometry: dict[str, Any] = {
        "patch_size": PATCH_SIZE,
        "merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
        "size": {"shortest_edge": pixels, "longest_edge": pixels},
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**geometry),
        tokenizer=tiny_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**geometry),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_model(tokenizer: Any, seed: int = 0) -> PreTrainedModel:
    """Qwen2.5-VL with the tiny configuration and our initial weights, for the token ids of `tokenizer`."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    generator = torch.Generator().manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(_configuration(tokenizer)).double()
    with torch.no_grad():
        _initialise_vision(model.model.visual, generator)
        _initialise_text(model.model.language_model, generator)
        model.lm_head.weight.normal_(0.0, 0.02, generator=generator)
        for parameter in model.parameters():
            _round_to_grid(parameter)
    return model.float().eval()


def _round_to_grid(parameter: torch.Tensor) -> None:
    """Round to multiples of 2⁻¹², in place.

    QR and cosines differ in their last bits with the number of threads and the processor. In double precision those
    bits vanish in the rounding, so that every machine builds the same weights and finds the same fingerprint.
    """
    parameter.copy_((parameter * WEIGHT_GRID).round() / WEIGHT_GRID)


def _configuration(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 2 * TEXT_WIDTH,
            "num_hidden_layers": TEXT_DEPTH,
            "num_attention_heads": TEXT_HEADS,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "mrope_section": [8, 12, 12],
            },
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": VISION_DEPTH,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 4 * VISION_WIDTH // 3,
            "num_heads": VISION_HEADS,
            "patch_size": PATCH_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "out_hidden_size": TEXT_WIDTH,
            "window_size": IMAGE_SIZE,
            "fullatt_block_indexes": list(range(VISION_DEPTH)),
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
        dtype="float32",
    )


def cosine_patch_basis(size: int, coefficients: int) -> torch.Tensor:
    """The lowest-frequency 2-D cosine functions on a `size` × `size` patch, as (coefficients, size, size).

    They are the discrete cosine transform's (type II) basis, ordered by frequency, orthonormal.
    """
    import torch

    position = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    waves = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * position)
    waves = waves / waves.norm(dim=1, keepdim=True)
    order = sorted(
        ((row, column) for row in range(size) for column in range(size)),
        key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair),
    )
    return torch.stack([torch.outer(waves[row], waves[column]) for row, column in order[:coefficients]])


def _initialise_vision(visual: Any, generator: torch.Generator) -> None:
    """Cosine patch embedding, quiet residual branches, and a merger that starts near a linear map.

    A block's output is its input plus a branch of gain 0.3, so that detail survives the frozen, random blocks. The
    first block's bias keeps the norm of a flat grey patch away from zero, where RMSNorm would blow up its noise.
    """
    colours = visual.config.in_channels
    basis = cosine_patch_basis(PATCH_SIZE, COEFFICIENTS)
    weight = visual.patch_embed.proj.weight
    weight.zero_()
    for coefficient in range(COEFFICIENTS):
        for colour in range(colours):
            weight[coefficient * colours + colour, colour] = basis[coefficient] * PATCH_GAIN
    for block in visual.blocks:
        for linear in (block.attn.qkv, block.mlp.gate_proj, block.mlp.up_proj):
            _orthogonal(linear, 1.0, generator)
        for linear in (block.attn.proj, block.mlp.down_proj):
            _orthogonal(linear, BRANCH_GAIN, generator)
    visual.blocks[0].attn.proj.bias[COEFFICIENTS * colours :] = 2.0
    _initialise_merger(visual.merger, COEFFICIENTS * colours, generator)


def _initialise_merger(merger: Any, informative: int, generator: torch.Generator) -> None:
    """Start the merger as "looks linear" (Balduzzi et al. 2017): rows in pairs w, −w, since GELU(x) − GELU(−x) = x.

    Its linear part takes the lowest frequencies of the four patches it merges, turned by a random rotation.
    """
    import torch

    first, last = merger.mlp[0], merger.mlp[2]
    per_patch = last.out_features // MERGE_SIZE**2
    chosen = torch.cat([torch.arange(per_patch) + patch * VISION_WIDTH for patch in range(MERGE_SIZE**2)])
    half = first.out_features // 2
    rotation = torch.empty(half, half, dtype=torch.float64)
    torch.nn.init.orthogonal_(rotation, generator=generator)
    rows = torch.zeros(half, first.in_features, dtype=torch.float64)
    rows[torch.arange(len(chosen)), chosen] = 1.0
    spare = half - len(chosen)
    others = torch.tensor([i for i in range(first.in_features) if i % VISION_WIDTH < informative])
    others = others[~torch.isin(others, chosen)]
    mixture = torch.empty(spare, len(others), dtype=torch.float64)
    torch.nn.init.orthogonal_(mixture, generator=generator)
    rows[len(chosen) :, others] = mixture
    first.weight.copy_(torch.cat([rotation @ rows, -(rotation @ rows)]))
    first.bias.zero_()
    back = rotation.T[: last.out_features]
    last.weight.copy_(torch.cat([back, -back], dim=1))
    last.bias.zero_()


def _initialise_text(language_model: Any, generator: torch.Generator) -> None:
    """Token embeddings of unit scale and quiet residual branches, as in the vision tower."""
    language_model.embed_tokens.weight.normal_(0.0, 1.0, generator=generator)
    for layer in language_model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            _orthogonal(linear, 1.0, generator)
        for linear in (attention.o_proj, mlp.down_proj):
            _orthogonal(linear, BRANCH_GAIN, generator)


def _orthogonal(linear: nn.Linear, gain: float, generator: torch.Generator) -> None:
    import torch

    torch.nn.init.orthogonal_(linear.weight, gain, generator=generator)
    if linear.bias is not None:
        linear.bias.zero_()


def _byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _as_json(tokenizer: Any) -> dict[str, Any]:
    import json

    return json.loads(tokenizer.to_str())
