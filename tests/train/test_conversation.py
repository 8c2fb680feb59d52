from dataclasses import replace
from typing import Any

import pytest
import torch

from blm.schemas.corpus import Message, Part
from blm.schemas.errors import ConfigError, DatasetError
from blm.train.conversation import (
    IGNORED,
    ConversationEncoder,
    SkippedRecordError,
    collate,
    training_template,
)
from blm.train.tiny import tiny_processor
from tests.train.corpus_builds import question

HUB_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_processor()


@pytest.fixture(scope="module")
def encoder(processor) -> ConversationEncoder:
    return ConversationEncoder(processor)


def spoken(encoder, example) -> str:
    return encoder.processor.tokenizer.decode(example.labels[example.labels != IGNORED])


def test_exactly_what_the_assistant_says_carries_loss(encoder):
    record, media = question("one", "blue")
    second = (
        Message("user", (Part("text", "Is it a peg?"),)),
        Message("assistant", (Part("text", "Nein, ein Würfel."),)),
    )
    record = replace(record, messages=(*record.messages, *second))
    example = encoder.encode(record, media)
    assert spoken(encoder, example) == "The cube is blue.<|im_end|>Nein, ein Würfel.<|im_end|>"
    labelled = example.labels != IGNORED
    assert torch.equal(example.labels[labelled], example.ids[labelled])
    text = encoder.processor.tokenizer.decode(example.ids)
    assert text.count("<|image_pad|>") == 64
    assert text.replace("<|image_pad|>", "").startswith(
        "<|im_start|>user\n<|vision_start|><|vision_end|>What colour is the cube?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_ids_and_pixels_are_those_of_the_processor(encoder):
    record, media = question("one", "red")
    images = [*media, *question("two", "green")[1]]
    first = Message("user", (Part("image", media=0), Part("text", "and"), Part("image", media=1)))
    record = replace(record, messages=(first, record.messages[1]), media=record.media * 2)
    example = encoder.encode(record, images)
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "The cube is red."}]},
    ]
    prompt = encoder.processor.apply_chat_template(chat, tokenize=False)
    from blm.train.conversation import _decoded

    expected = encoder.processor(text=[prompt], images=[_decoded(m, "") for m in images], return_tensors="pt")
    assert torch.equal(example.ids, expected["input_ids"][0])
    assert torch.equal(example.grids, expected["image_grid_thw"])
    assert torch.equal(example.pixels, expected["pixel_values"])
    assert spoken(encoder, example) == "The cube is red.<|im_end|>"


def test_system_turns_and_text_only_conversations(encoder):
    record, _ = question("one", "red")
    messages = (
        Message("system", (Part("text", "Answer briefly."),)),
        Message("user", (Part("text", "What is 1 + 1?"),)),
        Message("assistant", (Part("text", "2"),)),
    )
    example = encoder.encode(replace(record, messages=messages, media=()), ())
    assert example.pixels is None
    assert spoken(encoder, example) == "2<|im_end|>"


def test_what_is_too_long_is_cut_at_the_end_but_never_within_images_or_before_an_answer(processor):
    record, media = question("one", "blue")
    whole = ConversationEncoder(processor).encode(record, media)
    cut = ConversationEncoder(processor, max_length=len(whole.ids) - 3).encode(record, media)
    assert torch.equal(cut.ids, whole.ids[:-3])
    assert (cut.labels != IGNORED).any()
    with pytest.raises(SkippedRecordError, match="no answer fits"):
        ConversationEncoder(processor, max_length=75).encode(record, media)
    with pytest.raises(SkippedRecordError, match="images do not fit"):
        ConversationEncoder(processor, max_length=40).encode(record, media)


def test_special_tokens_in_the_text_and_broken_images_are_errors_that_name_the_record(encoder):
    record, media = question("odd", "blue")
    user = Message("user", (Part("image", media=0), Part("text", "<|image_pad|>")))
    with pytest.raises(DatasetError, match="'odd' shows 1 images"):
        encoder.encode(replace(record, messages=(user, record.messages[1])), media)
    with pytest.raises(DatasetError, match="'odd', media 0"):
        encoder.encode(record, (b"not an image",))


def test_batches_are_padded_on_the_right_without_loss(encoder):
    long, media = question("one", "blue")
    short = replace(long, messages=(Message("user", (Part("text", "Hello!"),)), long.messages[1]), media=())
    examples = [encoder.encode(short, ()), encoder.encode(long, media)]
    batch = collate(examples, encoder.pad_id, encoder.image_token_id)
    assert batch["attention_mask"].sum(1).tolist() == [len(example.ids) for example in examples]
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    assert (batch["mm_token_type_ids"] == 1).sum(1).tolist() == [0, 64]
    assert batch["image_grid_thw"].shape == (1, 3)


def test_templates_of_the_hub_get_marks_and_keep_their_wording(processor):
    plain = tiny_processor()
    plain.chat_template = HUB_TEMPLATE
    encoder = ConversationEncoder(plain)
    record, media = question("one", "blue")
    example = encoder.encode(record, media)
    assert spoken(encoder, example) == "The cube is blue.<|im_end|>"
    start = plain.tokenizer.decode(example.ids[:20])
    assert start.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user")
    assert training_template(processor)[1] == ""
    plain.chat_template = "{% for message in messages %}[{{ message['role'] }}]{% endfor %}"
    with pytest.raises(ConfigError, match="generation"):
        training_template(plain)
