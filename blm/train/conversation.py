"""Conversations of the corpus as training examples: token ids, pixels, and labels on what the assistant says.

The loss sees the assistant's words and the `<|im_end|>` that ends its turn, and nothing else. Which characters those
are comes from the `{% generation %}` marks of the chat template; their tokens are found by character offsets, after
each image mark has been widened to as many tokens as its image has.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from blm.schemas.corpus import CorpusRecord
from blm.schemas.errors import ConfigError, DatasetError
from blm.train.tiny import CHAT_TEMPLATE

IGNORED = -100
"""The label that carries no loss."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_DEFAULT_SYSTEM = "You are a helpful assistant."
_PROBE = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cube."}]},
]


class SkippedRecordError(Exception):
    """A record that cannot be trained on, with the reason."""


@dataclass(frozen=True)
class Example:
    """One encoded conversation of L tokens with N images.

    Attributes:
        id: of the record.
        family: the record's task family.
        ids: (L,) int64.
        labels: (L,) int64: the token's own id where the assistant speaks, else −100.
        pixels: (patches, patch values) float32 of all images, or None.
        grids: (N, 3) int64, (time, rows, columns) in patches.
    """

    id: str
    family: str
    ids: torch.Tensor
    labels: torch.Tensor
    pixels: torch.Tensor | None
    grids: torch.Tensor


class ConversationEncoder:
    """Turns corpus records into examples for a model of the Qwen2-VL family.

    Truncation: what exceeds `max_length` is cut off at the end, as long as that leaves every image whole and some
    of the assistant's words; otherwise the record is skipped.
    """

    def __init__(self, processor: Any, max_length: int = 1024) -> None:
        self.processor, self.max_length = processor, max_length
        self._template, self._system = training_template(processor)
        self.image_token_id: int = processor.image_token_id
        tokenizer = processor.tokenizer
        pad = tokenizer.pad_token_id
        self.pad_id: int = tokenizer.eos_token_id if pad is None else pad

    def encode(self, record: CorpusRecord, media: Sequence[bytes]) -> Example:
        """Encode one record; `media` are the bytes of its media, in order.

        Raises:
            SkippedRecordError: too long, or it holds a video.
            DatasetError: an image does not decode.
        """
        text, spans = _rendered(self._template, self._messages(record))
        pixels, grids = self._pixels(record, media)
        text, spans = self._widened(record, text, spans, grids)
        encoded = self.processor.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = torch.tensor(encoded["input_ids"])
        starts = torch.tensor([start for start, _ in encoded["offset_mapping"]])
        spoken = torch.zeros(len(ids), dtype=torch.bool)
        for first, last in spans:
            spoken |= (starts >= first) & (starts < last)
        labels = torch.where(spoken, ids, IGNORED)
        if len(ids) > self.max_length:
            ids, labels = self._shortened(ids, labels)
        return Example(record.id, record.task_family, ids, labels, pixels, grids)

    def _messages(self, record: CorpusRecord) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self._system and record.messages[0].role != "system":
            messages.append({"role": "system", "content": [{"type": "text", "text": self._system}]})
        for message in record.messages:
            parts: list[dict[str, str]] = []
            for part in message.content:
                if part.kind == "video":
                    raise SkippedRecordError("video is not read yet")
                parts.append(
                    {"type": "image"} if part.kind == "image" else {"type": "text", "text": part.text}
                )
            messages.append({"role": message.role, "content": parts})
        return messages

    def _pixels(
        self, record: CorpusRecord, media: Sequence[bytes]
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        shown = [
            part.media for message in record.messages for part in message.content if part.kind == "image"
        ]
        if not shown:
            return None, torch.zeros(0, 3, dtype=torch.int64)
        images = [_decoded(media[index], f"corpus record '{record.id}', media {index}") for index in shown]
        processed = self.processor.image_processor(images=images, return_tensors="pt")
        return processed["pixel_values"].float(), processed["image_grid_thw"]

    def _widened(
        self, record: CorpusRecord, text: str, spans: list[tuple[int, int]], grids: torch.Tensor
    ) -> tuple[str, list[tuple[int, int]]]:
        """Repeat each image mark as often as its image has tokens, and move the spans along."""
        token = self.processor.image_token
        marks = [match.start() for match in re.finditer(re.escape(token), text)]
        counts = (grids.prod(dim=1) // self.processor.image_processor.merge_size**2).tolist()
        if len(marks) != len(counts):
            raise DatasetError(
                f"corpus record '{record.id}' shows {len(counts)} images, but its text has {len(marks)} marks {token}.",
                "Leave the model's special tokens out of the text.",
            )

        def moved(place: int) -> int:
            before = zip(marks, counts, strict=True)
            return place + sum((count - 1) * len(token) for mark, count in before if mark < place)

        for mark, count in reversed(list(zip(marks, counts, strict=True))):
            text = text[:mark] + token * count + text[mark + len(token) :]
        return text, [(moved(first), moved(last)) for first, last in spans]

    def _shortened(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept_ids, kept_labels = ids[: self.max_length], labels[: self.max_length]
        if (ids[self.max_length :] == self.image_token_id).any():
            raise SkippedRecordError(f"{len(ids)} tokens; its images do not fit into {self.max_length}")
        if not (kept_labels != IGNORED).any():
            raise SkippedRecordError(f"{len(ids)} tokens; no answer fits into {self.max_length}")
        return kept_ids, kept_labels


def training_template(processor: Any) -> tuple[str, str]:
    """A chat template with generation marks that renders as the processor's own does, and the default system message.

    Templates on the hub lack the marks. For those whose turns have Qwen's form, ours stands in.

    Raises:
        ConfigError: the processor's template has another form.
    """
    own = processor.chat_template or getattr(processor.tokenizer, "chat_template", None)
    if not own:
        raise ConfigError("The backbone's processor has no chat template.", "Use an instruction-tuned model.")
    if _MARKS.search(own):
        return own, ""
    expected = _rendered(own, _PROBE)[0]
    for system in ("", _DEFAULT_SYSTEM):
        extra = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        if _rendered(CHAT_TEMPLATE, extra + _PROBE)[0] == expected:
            return CHAT_TEMPLATE, system
    raise ConfigError(
        "The backbone's chat template has no {% generation %} marks and not Qwen's form.",
        "Add the marks around what the assistant says to its chat_template.jinja.",
    )


def collate(examples: Sequence[Example], pad_id: int, image_token_id: int) -> dict[str, torch.Tensor]:
    """A batch for the model, padded on the right: (B, L) ids, masks and labels, and all images one after the other."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), longest), pad_id)
    labels = torch.full((len(examples), longest), IGNORED)
    mask = torch.zeros((len(examples), longest), dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length], labels[row, :length], mask[row, :length] = example.ids, example.labels, 1
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == image_token_id).int(),
        "labels": labels,
    }
    pixels = [example.pixels for example in examples if example.pixels is not None]
    if pixels:
        batch["pixel_values"] = torch.cat(pixels)
        batch["image_grid_thw"] = torch.cat([example.grids for example in examples])
    return batch


def _rendered(template: str, messages: list[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text, and the character spans that the assistant says."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        conversations=[messages],
        chat_template=template,
        return_assistant_tokens_mask=bool(_MARKS.search(template)),
    )
    return texts[0], [(int(first), int(last)) for first, last in spans[0]] if spans else []


def _decoded(content: bytes, where: str) -> np.ndarray:
    """(height, width, 3) uint8 RGB."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(f"{where} does not decode: {error}", "Build the corpus again.") from error
