import hashlib
import json
from typing import Any, cast

import numpy as np
import pytest
import torch

from blm.train.tiny import (
    COEFFICIENTS,
    PATCH_SIZE,
    SPECIAL_TOKENS,
    build_tiny,
    cosine_patch_basis,
    save_tiny,
    tiny_model,
    tiny_tokenizer,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_tokenizer_is_always_the_same_one():
    vocabulary = tiny_tokenizer().get_vocab()
    digest = hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode()).hexdigest()
    assert digest[:16] == "0b354af27c5c550d"


def test_every_text_survives_the_tokenizer():
    tokenizer = tiny_tokenizer()
    for text in ("push the blue cube onto the target", "Prüfe 12.5 % — 机器人\n\ttab", "{'point': [64, 32]}"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_task_words_are_single_tokens_and_special_tokens_are_never_split():
    tokenizer = tiny_tokenizer()
    assert len(tokenizer.tokenize("push the blue cube onto the target")) == 7
    assert tokenizer.tokenize("".join(SPECIAL_TOKENS)) == list(SPECIAL_TOKENS)


def test_the_seed_decides_the_weights():
    first, second, other = (build_tiny(seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_saved_and_loaded_it_gives_the_same_logits(tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = cast(tuple[Any, Any], build_tiny())
    save_tiny(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    results = []
    for m, p in ((model, processor), (again, AutoProcessor.from_pretrained(tmp_path))):
        prompt = p.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        with torch.inference_mode():
            results.append(m(**p(text=[prompt], images=[image], return_tensors="pt")).logits)
    assert results[0].shape[1] > 64
    assert torch.equal(results[0], results[1])


def test_the_cosine_basis_is_orthonormal_and_starts_with_the_mean():
    basis = cosine_patch_basis(PATCH_SIZE, COEFFICIENTS).flatten(1)
    torch.testing.assert_close(
        basis @ basis.T, torch.eye(COEFFICIENTS, dtype=torch.float64), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(basis[0], torch.full((PATCH_SIZE**2,), 1 / PATCH_SIZE, dtype=torch.float64))


def test_the_merger_starts_as_a_linear_map_of_what_it_merges():
    visual = build_tiny()[0].model.visual
    a, b = torch.randn(2, 8, 4 * visual.config.hidden_size).unbind()
    with torch.inference_mode():
        mlp = visual.merger.mlp
        torch.testing.assert_close(mlp(a) + mlp(b), mlp(a + b), atol=1e-4, rtol=1e-4)


def test_the_weights_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        digests = []
        for count in (1, 2):
            torch.set_num_threads(count)
            model = tiny_model(tiny_tokenizer())
            weights = b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())
            digests.append(hashlib.sha256(weights).hexdigest())
    finally:
        torch.set_num_threads(threads)
    assert digests[0] == digests[1]
