"""What texts mean, as vectors of a sentence encoder: a folder or a hub id that `transformers` opens (BERT and kin).

The states of the last layer are averaged over the tokens that are no padding (mean pooling: Reimers and Gurevych 2019,
"Sentence-BERT"), and scaled to length 1. Weights are read from safetensors alone; a model's own code is not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from blm.curate.shards import file_sha256
from blm.schemas.errors import ConfigError, MissingExtraError
from blm.schemas.yaml_model import FrozenModel


class Embeddings(FrozenModel):
    """A sentence encoder, and from where on texts count as alike in meaning."""

    model: str = Field(description="folder, or hub id, of an encoder with its tokenizer")
    revision: str | None = Field(default=None, description="of a hub id: a commit; default: the newest")
    threshold: float = Field(default=0.95, gt=0, le=1, description="cosine similarity")
    max_tokens: int = Field(default=256, ge=8, description="of a text; what comes later is not looked at")
    batch: int = Field(default=64, ge=1, description="texts at once; no effect on the result but rounding")

    def identity(self) -> str:
        """What stands for the model's content in the fingerprint of a build."""
        folder = Path(self.model)
        if not folder.is_dir():
            return f"{self.model}@{self.revision}"
        digest = hashlib.sha256()
        for path in sorted(one for one in folder.iterdir() if one.is_file()):
            digest.update(f"{path.name} {file_sha256(path)}\n".encode(errors="replace"))
        return digest.hexdigest()


class TextEncoder:
    """Texts to vectors, with the model in memory.

    Raises:
        MissingExtraError: transformers or torch is not installed.
        ConfigError: there is no such model, or it is none that encodes text.
    """

    def __init__(self, settings: Embeddings) -> None:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("transformers", "train") from error
        self._torch, self._settings = torch, settings
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(settings.model, revision=settings.revision)
            model: Any = AutoModel.from_pretrained(
                settings.model, revision=settings.revision, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"near_duplicates.embeddings.model: {settings.model} cannot be opened: {error}",
                "Give the folder of an encoder with its tokenizer and safetensors weights.",
            ) from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = model.eval().to(device)
        positions = getattr(model.config, "max_position_embeddings", None) or settings.max_tokens
        self._max_tokens = min(settings.max_tokens, positions)

    @property
    def width(self) -> int:
        """Values of a vector."""
        return int(self._model.config.hidden_size)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (N, width) float32 of length 1, in the order of the texts."""
        found = np.empty((len(texts), self.width), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        for start in range(0, len(texts), self._settings.batch):
            numbers = by_length[start : start + self._settings.batch]
            found[numbers] = self._embedded([texts[number] for number in numbers])
        return found

    def _embedded(self, texts: list[str]) -> np.ndarray:
        torch = self._torch
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._model.device)
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
