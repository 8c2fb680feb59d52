"""Stage I: fine-tune the multimodal LLM on the corpus, with the loss on what the assistant says.

corpus ── conversations ──encoder──▶ batches ──▶ MLLM ──▶ RUN/

RUN/
  config.json          the configuration
  losses.jsonl         training losses
  validation.jsonl     figures on held-out records, while training and at its end
  skipped.json         records that could not be trained on, and why
  checkpoints/         for --resume
  backbone/            the trained model in Hugging Face form; `--backbone RUN/backbone` in Stage II
  summary.json         written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from blm.schemas.errors import CheckpointError, ConfigError, DatasetError, OutputExistsError
from blm.schemas.manifest import read_manifest, write_atomically
from blm.schemas.progress import Progress, silent
from blm.train.backbone import load_model_and_processor
from blm.train.checkpoint import latest_checkpoint
from blm.train.conversation import (
    IGNORED,
    ConversationEncoder,
    Example,
    SkippedRecordError,
    collate,
)
from blm.train.corpus_reader import CorpusBuild
from blm.train.loop import (
    CONFIG_FILE,
    LoopConfig,
    TrainLoop,
    TrainSummary,
    check_device,
    forgotten_unless_begun,
)
from blm.train.shard_reader import EpochOrder

BACKBONE_FOLDER = "backbone"
VALIDATION_FILE = "validation.jsonl"
SKIPPED_FILE = "skipped.json"

Batch = dict[str, torch.Tensor]
Part = Literal["vision", "merger", "language"]

_MAY_CHANGE = frozenset(
    {"output", "corpus", "resume", "steps", "device", "log_every", "checkpoint_every", "keep_checkpoints"}
)


class Stage1Config(LoopConfig):
    """One Stage I run. The defaults suit the tiny backbone on a CPU."""

    corpus: Path = Field(description="folder of a Stage I build")
    output: Path = Field(description="folder of the run")
    backbone: str = Field(default="tiny", description="tiny, a folder in Hugging Face form, or a hub id")
    steps: int = Field(default=200, ge=1, description="optimiser steps")
    batch_size: int = Field(default=8, ge=1, description="conversations per batch")
    learning_rate: float = Field(
        default=2e-3,
        gt=0,
        description="after warm-up; for a pretrained model of billions of parameters, near 1e-5",
    )
    max_length: int = Field(default=1024, ge=16, description="tokens of a conversation; longer ones are cut")
    freeze: tuple[Part, ...] = Field(default=("vision",), description="parts that stay as they are")
    freeze_blocks: int = Field(
        default=0,
        ge=0,
        description="the first n language blocks, and the embedding they read, also stay as they are; with the vision "
        "tower and merger frozen and n = Stage II's tap, the intent tokens do not change",
    )
    gradient_checkpointing: bool = Field(default=False, description="less memory, a third more time")
    log_every: int = Field(default=5, ge=1, description="steps between rows of losses.jsonl")
    validation_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="of the training split, where the corpus has no 'val' split"
    )
    validation_every: int = Field(
        default=0, ge=0, description="steps between validations; 0 = only at the end"
    )
    validation_records: int = Field(default=128, ge=0, description="at most this many are looked at")
    device: str = "cpu"
    resume: bool = Field(default=False, description="go on from the newest checkpoint in `output`")


def train_stage1(config: Stage1Config, progress: Progress | None = None) -> TrainSummary:
    """Fine-tune a backbone and write its run.

    Raises:
        OutputExistsError: `output` holds a run already and `resume` is not set.
        CheckpointError: `resume` is set and the run there had other settings; names the first.
        DatasetError: the corpus is missing, damaged or empty.
        ConfigError: the backbone is of a family that is not supported, or the device is not there.
    """
    began, progress = time.monotonic(), progress or silent
    read_manifest(config.corpus, "stage1-corpus")  # fails before anything is written
    check_device(config.device)
    _prepare_output(config)
    torch.manual_seed(config.seed)
    with forgotten_unless_begun(config.output), CorpusBuild(config.corpus) as corpus:
        model, processor = load_model_and_processor(config.backbone)
        stored_type = model.dtype
        model = _trainable(model.float(), config).to(config.device)
        encoder = ConversationEncoder(processor, config.max_length)
        training, held_out = split_records(corpus, config)
        batches = ConversationBatches(
            corpus, encoder, training, config.batch_size, config.seed, config.device
        )
        loop = TrainLoop(
            model, batches, config, config.output, samples_per_batch=config.batch_size, progress=progress
        )
        if config.resume:
            loop.resume()
            _forget_validation_after(config.output, loop.step)
        validation = _Validation(config, model, corpus, encoder, held_out)

        def loss(batch: Batch, draw: int) -> Mapping[str, torch.Tensor]:
            step = draw // config.accumulate
            if config.validation_every and draw % (config.accumulate * config.validation_every) == 0 and step:
                validation.run(step)
            return assistant_loss(model, batch)

        losses = loop.run(loss)
        figures = validation.run(loop.step)
    _write_skipped(config.output, batches.skipped | validation.skipped)
    _write_backbone(config.output, model.to(stored_type), processor)
    summary = TrainSummary(
        config.output, loop.step, losses, figures, loop.samples_per_second, time.monotonic() - began
    )
    summary.write()
    return summary


def assistant_loss(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Cross-entropy per token the assistant says, and the fraction of those tokens predicted right."""
    logits, targets = assistant_logits(model, batch)
    return {
        "loss": nn.functional.cross_entropy(logits.float(), targets),
        "token_accuracy": (logits.argmax(dim=-1) == targets).float().mean(),
    }


def assistant_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, vocabulary) and targets (n,) of the n tokens with a label.

    Only those positions pass `lm_head`: with a vocabulary of 150,000 the others would fill the memory.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    targets = batch["labels"][:, 1:]
    labelled = targets != IGNORED
    return model.lm_head(hidden[labelled]), targets[labelled]


def split_records(corpus: CorpusBuild, config: Stage1Config) -> tuple[list[int], list[int]]:
    """Indices of the records to train on and of those held out.

    Held out is the corpus's `val` split; where it has none, a fraction of `train` chosen by the record ids.
    """
    by_split: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(corpus.records):
        by_split[record.split].append(index)
    training, held_out = by_split["train"], by_split["val"]
    if not held_out:
        chosen = {i for i in training if _fraction(corpus.records[i].id) < config.validation_fraction}
        training, held_out = [i for i in training if i not in chosen], sorted(chosen)
    if not training:
        raise DatasetError(f"{config.corpus} holds no record to train on.", "Build it from more sources.")
    held_out = sorted(held_out, key=lambda i: _fraction(corpus.records[i].id))
    return training, held_out[: config.validation_records]


class ConversationBatches:
    """An endless, resumable stream of batches of conversations.

    Attributes:
        skipped: id → reason of the records met that cannot be trained on; batches are smaller by these.
    """

    def __init__(
        self,
        corpus: CorpusBuild,
        encoder: ConversationEncoder,
        indices: Sequence[int],
        batch_size: int,
        seed: int,
        device: str,
    ) -> None:
        self.corpus, self.encoder, self.indices, self.device = corpus, encoder, indices, device
        self.order = EpochOrder(len(indices), batch_size, seed)
        self.skipped: dict[str, str] = {}

    def __next__(self) -> Batch:
        while True:
            chosen = [self.indices[i] for i in next(self.order)]
            examples = encode_records(self.corpus, self.encoder, chosen, self.skipped)
            if examples:
                return collated(examples, self.encoder, self.device)
            if len(self.skipped) >= len(self.indices):
                reason = next(iter(self.skipped.values()))
                raise DatasetError(
                    f"No record of the corpus can be trained on ({reason}).", "Raise max_length."
                )

    def state_dict(self) -> dict[str, int]:
        return self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.order.load_state_dict(state)


def encode_records(
    corpus: CorpusBuild, encoder: ConversationEncoder, indices: Sequence[int], skipped: dict[str, str]
) -> list[Example]:
    """Encode records; those that cannot be are noted in `skipped`, id → reason."""
    examples = []
    for index in indices:
        record = corpus.records[index]
        try:
            examples.append(encoder.encode(record, corpus.media(index)))
        except SkippedRecordError as error:
            skipped[record.id] = str(error)
    return examples


def collated(examples: Sequence[Example], encoder: ConversationEncoder, device: str) -> Batch:
    batch = collate(examples, encoder.pad_id, encoder.image_token_id)
    return {name: value.to(device) for name, value in batch.items()}


class _Validation:
    """Measures the model on held-out records.

    A record counts as answered exactly when each token of each answer is the model's first choice given those
    before it; that is the case if and only if greedy decoding gives the same answers.
    """

    def __init__(
        self,
        config: Stage1Config,
        model: Any,
        corpus: CorpusBuild,
        encoder: ConversationEncoder,
        held_out: Sequence[int],
    ) -> None:
        self.config, self.model, self.corpus, self.encoder = config, model, corpus, encoder
        self.held_out = held_out
        self.skipped: dict[str, str] = {}

    def run(self, step: int) -> dict[str, float]:
        """Figures by name, also appended to validation.jsonl; empty where nothing is held out."""
        total, tokens = 0.0, 0
        exact: dict[str, list[bool]] = defaultdict(list)
        self.model.eval()
        for start in range(0, len(self.held_out), self.config.batch_size):
            chosen = self.held_out[start : start + self.config.batch_size]
            examples = encode_records(self.corpus, self.encoder, chosen, self.skipped)
            if examples:
                loss, count = self._batch(examples, exact)
                total, tokens = total + loss, tokens + count
        self.model.train()
        if not tokens:
            return {}
        every = [right for family in exact.values() for right in family]
        figures = {"loss": total / tokens, "exact_match": sum(every) / len(every)}
        figures |= {f"exact_match/{name}": sum(right) / len(right) for name, right in sorted(exact.items())}
        with (self.config.output / VALIDATION_FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step} | figures) + "\n")
        return figures

    @torch.no_grad()
    def _batch(self, examples: list[Example], exact: dict[str, list[bool]]) -> tuple[float, int]:
        batch = collated(examples, self.encoder, self.config.device)
        logits, targets = assistant_logits(self.model, batch)
        right = logits.argmax(dim=-1) == targets
        per_record = (batch["labels"][:, 1:] != IGNORED).sum(dim=1).tolist()
        for example, answers in zip(examples, right.split(per_record), strict=True):
            exact[example.family].append(bool(answers.all()))
        loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        return float(loss), len(targets)


def _trainable(model: Any, config: Stage1Config) -> Any:
    """The model ready for training, with the chosen parts frozen."""
    merger_names = ("visual.merger", "visual.deepstack_merger_list")
    for name, parameter in model.named_parameters():
        if any(merger in name for merger in merger_names):
            part = "merger"
        else:
            part = "vision" if "visual." in name else "language"
        parameter.requires_grad_(part not in config.freeze and not _is_early(name, config.freeze_blocks))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("Every part of the backbone is frozen.", "Leave a part out of `freeze`.")
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.train()


def _is_early(name: str, blocks: int) -> bool:
    """Whether a parameter belongs to the first language blocks or the embedding before them."""
    if blocks and "embed_tokens" in name:
        return True
    _, found, rest = name.partition("language_model.layers.")
    return bool(found) and int(rest.split(".", 1)[0]) < blocks


def _prepare_output(config: Stage1Config) -> None:
    """Refuse to mix runs; write config.json."""
    path = config.output / CONFIG_FILE
    content = config.model_dump(mode="json")
    if path.is_file():
        if not config.resume:
            raise OutputExistsError(
                f"{config.output} holds a run already.", "Choose another --output, or add --resume."
            )
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            key for key in sorted(content) if key not in _MAY_CHANGE and before.get(key) != content[key]
        ]
        if changed and latest_checkpoint(config.output) is not None:
            raise CheckpointError(
                f"{config.output} was trained with {changed[0]} = {before.get(changed[0])!r}, "
                f"not {content[changed[0]]!r}.",
                "Resume with the same settings, or choose another --output.",
            )
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def _forget_validation_after(output: Path, step: int) -> None:
    """Drop validation rows that a resumed run will write again."""
    path = output / VALIDATION_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if json.loads(line)["step"] < step]
    write_atomically(path, "".join(line + "\n" for line in kept).encode())


def _write_skipped(output: Path, skipped: Mapping[str, str]) -> None:
    write_atomically(output / SKIPPED_FILE, json.dumps(skipped, indent=1, sort_keys=True).encode() + b"\n")


def _write_backbone(output: Path, model: Any, processor: Any) -> None:
    final, beside = output / BACKBONE_FOLDER, output / f".{BACKBONE_FOLDER}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    processor.save_pretrained(beside)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(beside, final)


def _fraction(name: str) -> float:
    """A number in 0..1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48
