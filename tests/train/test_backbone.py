import json
from typing import Any, cast

import numpy as np
import pytest
import torch

from blm.schemas.errors import CheckpointError, ConfigError, UsageError
from blm.train.backbone import Backbone, load_backbone
from blm.train.tiny import build_tiny, save_tiny

PUSH, PICK = "push the cube", "pick up the red cube and move it to the green goal"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny")


def pictures(
    frames: int = 2, cameras: int = 1, height: int = 128, width: int = 128, seed: int = 0
) -> np.ndarray:
    shape = (frames, cameras, height, width, 3)
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def test_shapes_and_the_place_of_every_token(backbone):
    tokens = backbone.intent(pictures(cameras=2), [PUSH, PICK])
    count = tokens.mask.sum(1)
    assert tokens.hidden.shape == (2, int(count.max()), backbone.width)
    assert count[0] < count[1]
    for camera in (0, 1):
        assert (tokens.segment == 1 + camera).sum(1).tolist() == [64, 64]
    centres = tokens.position[0][tokens.segment[0] == 2]
    assert centres[0].tolist() == [0.0625, 0.0625]
    assert centres[9].tolist() == [0.1875, 0.1875]
    text = tokens.position[1][tokens.segment[1] == 0]
    assert (text[:, 0] == 0).all()
    assert (text[:, 1].diff() > 0).all()
    assert not tokens.hidden[0, count[0] :].any()
    assert not tokens.mask[0, count[0] :].any()


@pytest.mark.parametrize("tap", [1, 2, 3, 4])
def test_stopping_early_is_bit_equal_to_the_hidden_states_of_the_whole_model(tap):
    images = pictures(3)
    early = load_backbone("tiny", tap=tap)
    tokens = early.intent(images, [PUSH] * 3)
    whole = load_backbone("tiny", tap=4)
    pixels, grid = whole.pixel_values(images[:, 0])
    ids = torch.stack([whole.layout(PUSH, 1, 8, 8).ids] * 3)
    with torch.inference_mode():
        states = whole._model(
            input_ids=ids,
            mm_token_type_ids=(tokens.segment > 0).int(),
            pixel_values=pixels,
            image_grid_thw=grid.expand(3, 3),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
    assert torch.equal(tokens.hidden, states[tap])


def test_it_agrees_with_the_library_run_as_its_makers_intend(backbone):
    """Processor, attention mask and convolution of transformers, against our pixels, matrix product and no mask."""
    model, processor = cast(tuple[Any, Any], build_tiny())
    images = pictures(2, cameras=2)
    prompts = [backbone._prompt(text, 2) for text in (PUSH, PICK)]
    flat = list(images.reshape(4, *images.shape[2:]))
    inputs = processor(text=prompts, images=flat, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs, output_hidden_states=True).hidden_states[backbone.tap]
    tokens = backbone.intent(images, [PUSH, PICK])
    assert torch.equal(tokens.mask, inputs["attention_mask"].bool())
    torch.testing.assert_close(tokens.hidden[tokens.mask], expected[tokens.mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 96), (100, 160), (300, 200)])
def test_pixels_equal_those_of_the_image_processor(backbone, height, width):
    images = pictures(3, 1, height, width)[:, 0]
    pixels, grid = backbone.pixel_values(images)
    expected = build_tiny()[1].image_processor(images=list(images), return_tensors="pt")
    torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-5, rtol=0)
    assert grid.tolist() == expected["image_grid_thw"][0].tolist()


@pytest.mark.parametrize(("camera", "row", "column"), [(0, 0, 0), (0, 3, 6), (1, 7, 2)])
def test_a_marked_patch_is_where_its_position_says(backbone, camera, row, column):
    """Before any attention (vision blocks silenced), only the token of the changed pixels changes."""
    silent = load_backbone("tiny", tap=1)
    for module in (*silent._model.visual.blocks, *silent._model.language_model.layers):
        for name, parameter in module.named_parameters():
            if "proj" in name and "qkv" not in name:
                parameter.zero_()
    plain = np.full((1, 2, 128, 128, 3), 100, np.uint8)
    marked = plain.copy()
    marked[0, camera, row * 16 + 5, column * 16 + 7] = 255
    before, after = silent.intent(plain, [PUSH]), silent.intent(marked, [PUSH])
    changed = (before.hidden != after.hidden).any(-1)[0].nonzero()[:, 0]
    assert len(changed) == 1
    assert before.segment[0, changed].item() == 1 + camera
    assert before.position[0, changed[0]].tolist() == [(row + 0.5) / 8, (column + 0.5) / 8]


def test_a_frame_does_not_depend_on_its_batch_and_images_not_on_the_wording(backbone):
    images = pictures(3)
    together = backbone.intent(images, [PUSH, PICK, PUSH])
    alone = backbone.intent(images[:1], [PUSH])
    length = alone.hidden.shape[1]
    torch.testing.assert_close(together.hidden[0, :length], alone.hidden[0], atol=1e-5, rtol=1e-5)
    other = backbone.intent(images[:1], [PICK])
    seen, seen_other = (t.hidden[0][t.segment[0] == 1] for t in (alone, other))
    torch.testing.assert_close(seen, seen_other, atol=1e-5, rtol=1e-5)


def test_the_features_can_feed_a_trainable_module(backbone):
    hidden = backbone.intent(pictures(1), [PUSH]).hidden
    layer = torch.nn.Linear(backbone.width, 1)
    layer(hidden).sum().backward()
    assert layer.weight.grad is not None
    assert not hidden.requires_grad


def test_the_fingerprint_follows_weights_and_tap_and_survives_saving(backbone, tmp_path):
    save_tiny(tmp_path)
    assert load_backbone(str(tmp_path)).fingerprint == backbone.fingerprint
    model, processor = build_tiny()
    with torch.no_grad():
        model.model.language_model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    changed = Backbone(model, processor, name="changed", tap=None, device="cpu")
    fingerprints = {backbone.fingerprint, changed.fingerprint, load_backbone("tiny", tap=1).fingerprint}
    assert len(fingerprints) == 3


def test_the_fingerprint_follows_the_image_settings():
    model, processor = build_tiny()
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    assert (
        Backbone(model, processor, name="x", tap=None, device="cpu").fingerprint
        != load_backbone("tiny").fingerprint
    )


def test_errors_say_what_is_allowed(backbone, tmp_path):
    with pytest.raises(ConfigError, match="from 1 to 4"):
        load_backbone("tiny", tap=5)
    with pytest.raises(ConfigError, match="'smol'"):
        load_backbone("smol")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match="qwen2_5_vl"):
        load_backbone(str(tmp_path))
    with pytest.raises(UsageError, match="uint8"):
        backbone.intent(pictures(1)[0], [PUSH])
    with pytest.raises(UsageError, match="2 frames, but 1"):
        backbone.intent(pictures(2), [PUSH])
    with pytest.raises(UsageError, match="image token"):
        backbone.intent(pictures(1), ["push <|image_pad|>"])
