"""The other families of the adapter, as tiny random models of their real classes."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from blm.train.backbone import Backbone
from blm.train.tiny import tiny_processor

WORDINGS = ("push the cube", "pick up the cube now")
VISION = {"depth": 2, "num_heads": 2, "patch_size": 8, "temporal_patch_size": 2, "spatial_merge_size": 2}


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_processor()


def text(rope: list[int], **more: Any) -> dict[str, Any]:
    rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": rope}
    sizes = {"hidden_size": 96, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3}
    tokens = {"bos_token_id": None, "eos_token_id": 2, "vocab_size": 1536}
    return sizes | tokens | {"num_key_value_heads": 1, "rope_parameters": rope_parameters} | more


def model_of(family: str, processor: Any) -> Any:
    import transformers

    token = processor.tokenizer.convert_tokens_to_ids
    tokens = {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }
    torch.manual_seed(0)
    if family == "qwen2_vl":
        vision = VISION | {"embed_dim": 64, "hidden_size": 96, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(text_config=text([4, 6, 6]), vision_config=vision, **tokens)
        return transformers.Qwen2VLForConditionalGeneration(config).eval()
    vision = VISION | {"hidden_size": 64, "intermediate_size": 64, "out_hidden_size": 96}
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = transformers.Qwen3VLConfig(
        text_config=text([6, 5, 5], head_dim=32), vision_config=vision, **tokens
    )
    return transformers.Qwen3VLForConditionalGeneration(config).eval()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
@pytest.mark.parametrize("tap", [1, 2, 3])
def test_intent_is_what_the_next_block_of_the_library_s_model_sees(processor, family, tap):
    model = model_of(family, processor)
    seen: list[torch.Tensor] = []
    layers = model.model.language_model.layers
    after = layers[tap] if tap < len(layers) else model.lm_head
    after.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone = Backbone(copy.deepcopy(model), processor, name=family, tap=tap, device="cpu")
    images = np.random.default_rng(0).integers(0, 255, (2, 2, 128, 128, 3), dtype=np.uint8)
    prompts = [backbone._prompt(wording, 2) for wording in WORDINGS]
    flat = list(images.reshape(4, 128, 128, 3))
    inputs = processor(text=prompts, images=flat, padding=True, return_tensors="pt")
    with torch.inference_mode():
        model(**inputs)
    tokens = backbone.intent(images, WORDINGS)
    torch.testing.assert_close(tokens.hidden[tokens.mask], seen[0][tokens.mask], atol=1e-5, rtol=1e-4)
