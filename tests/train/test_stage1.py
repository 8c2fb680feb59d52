import json
from typing import Any

import numpy as np
import pytest
import torch

from blm.schemas.errors import CheckpointError, ConfigError, DatasetError, OutputExistsError
from blm.train.backbone import load_backbone, load_model_and_processor
from blm.train.conversation import ConversationEncoder, collate
from blm.train.corpus_reader import CorpusBuild
from blm.train.stage1 import Stage1Config, assistant_loss, split_records, train_stage1
from tests.train.corpus_builds import make_corpus, question

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    samples = [question(f"train-{i}", COLOURS[i % 3]) for i in range(6)]
    samples += [question(f"val-{i}", COLOURS[i % 3], split="val") for i in range(3)]
    return make_corpus(tmp_path_factory.mktemp("stage1") / "corpus", samples)


def settings(corpus, output, **changes) -> Stage1Config:
    values: dict[str, Any] = {"steps": 4, "batch_size": 2, "log_every": 1, "checkpoint_every": 2} | changes
    return Stage1Config(corpus=corpus, output=output, **values)


def rows(output, name="losses.jsonl"):
    return [json.loads(line) for line in (output / name).read_text().splitlines()]


class KilledError(Exception):
    pass


def test_killed_and_resumed_gives_the_same_losses_and_weights(corpus, tmp_path):
    whole = train_stage1(settings(corpus, tmp_path / "whole", validation_every=1))

    def kill(label, done, total, note=""):
        if done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train_stage1(settings(corpus, tmp_path / "killed", validation_every=1), kill)
    resumed = train_stage1(settings(corpus, tmp_path / "killed", validation_every=1, resume=True))
    for name in ("losses.jsonl", "validation.jsonl"):
        first, second = rows(tmp_path / "whole", name), rows(tmp_path / "killed", name)
        for row in (*first, *second):
            row.pop("samples_per_second", None)
        assert first == second
    assert resumed.steps == 4
    assert resumed.validation == whole.validation
    weights = "backbone/model.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (tmp_path / "killed" / weights).read_bytes()
    assert (tmp_path / "killed" / "summary.json").is_file()
    changed = load_backbone(str(tmp_path / "whole" / "backbone"))
    assert changed.width == 192
    assert changed.fingerprint != load_backbone("tiny").fingerprint


def test_it_learns_to_name_the_colour_and_keeps_the_frozen_part(corpus, tmp_path):
    summary = train_stage1(
        settings(corpus, tmp_path, steps=45, batch_size=6, learning_rate=3e-3, checkpoint_every=0)
    )
    first = rows(tmp_path)[0]
    assert first["loss"] == pytest.approx(7.3, abs=0.3), "the logarithm of the vocabulary's size"
    assert summary.losses["loss"] < 0.5
    assert summary.validation["exact_match"] == summary.validation["exact_match/perception"] == 1.0
    trained = load_model_and_processor(str(tmp_path / "backbone"))[0].state_dict()
    start = load_model_and_processor("tiny")[0].state_dict()
    same = {name for name in start if torch.equal(start[name], trained[name])}
    assert same == {name for name in start if "visual." in name and "merger" not in name}


def test_the_loss_is_that_of_the_library(corpus):
    model, processor = load_model_and_processor("tiny")
    encoder = ConversationEncoder(processor)
    with CorpusBuild(corpus) as build:
        examples = [encoder.encode(build.records[i], build.media(i)) for i in range(3)]
    batch = collate(examples, encoder.pad_id, encoder.image_token_id)
    with torch.inference_mode():
        torch.testing.assert_close(assistant_loss(model, batch)["loss"], model(**batch).loss)


def test_without_a_val_split_some_records_are_held_out(tmp_path):
    folder = make_corpus(tmp_path / "corpus", [question(f"q{i}", "red") for i in range(40)])
    with CorpusBuild(folder) as build:
        training, held_out = split_records(build, settings(folder, tmp_path, validation_fraction=0.25))
    assert sorted(training + held_out) == list(range(40))
    assert 3 < len(held_out) < 18


def test_records_that_do_not_fit_are_listed_with_the_reason(tmp_path):
    long, media = question("long", "red")
    folder = make_corpus(tmp_path / "corpus", [question("short", "blue"), (long, media)])
    with pytest.raises(DatasetError, match="no answer fits into 70"):
        train_stage1(settings(folder, tmp_path / "none", max_length=70, validation_fraction=0))


def test_errors_before_any_work(corpus, tmp_path):
    train_stage1(settings(corpus, tmp_path / "run", steps=1))
    with pytest.raises(OutputExistsError, match="holds a run already"):
        train_stage1(settings(corpus, tmp_path / "run"))
    with pytest.raises(CheckpointError, match="batch_size = 2, not 3"):
        train_stage1(settings(corpus, tmp_path / "run", batch_size=3, resume=True))
    with pytest.raises(ConfigError, match="frozen"):
        train_stage1(settings(corpus, tmp_path / "ice", freeze=("vision", "merger", "language")))
    assert list((tmp_path / "ice").iterdir()) == []
    with pytest.raises(ConfigError, match="device 'abacus' cannot be used on this machine; there are: cpu"):
        train_stage1(settings(corpus, tmp_path / "beads", device="abacus"))
    assert not (tmp_path / "beads").exists()
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        train_stage1(settings(tmp_path, tmp_path / "nothing"))


def test_with_everything_below_the_tap_frozen_the_intent_tokens_do_not_change(corpus, tmp_path):
    frozen = {"freeze": ("vision", "merger"), "freeze_blocks": 2, "steps": 2}
    train_stage1(settings(corpus, tmp_path / "kept", **frozen))
    train_stage1(settings(corpus, tmp_path / "moved", steps=2))
    images = np.random.default_rng(0).integers(0, 255, (1, 1, 128, 128, 3), dtype=np.uint8)

    def intent(spec: str) -> torch.Tensor:
        return load_backbone(spec, tap=2).intent(images, ["push the cube"]).hidden

    before = intent("tiny")
    assert torch.equal(intent(str(tmp_path / "kept" / "backbone")), before)
    assert not torch.equal(intent(str(tmp_path / "moved" / "backbone")), before)
