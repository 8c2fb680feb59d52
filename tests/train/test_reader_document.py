from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from blm.train.shard_reader import ShardReader
from tests.train.stage2_builds import make_build

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reader.md"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_examples_run_and_say_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_build(tmp_path / "splits", cameras=("top", "wrist"))
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    names: dict = {}
    for example in examples[:2]:
        exec(example, names)
    assert names["images"].shape == (8, 2, 224, 224, 3)
    assert names["chunk"].shape == (8, 16, 6)
    sixth = ShardReader("splits", batch_size=8, image_size=224).batch_at(5)
    assert np.array_equal(names["batch"]["images"].numpy(), sixth["images"])
    exec(examples[2], names)
    plain, changed = ShardReader("splits", batch_size=8, mixture={"*": 1.0}), names["reader"]
    assert next(changed)["images"].mean() < next(plain)["images"].mean()


def test_every_key_of_a_batch_is_in_the_document(tmp_path: Path) -> None:
    make_build(tmp_path)
    batch = next(ShardReader(tmp_path, batch_size=2, future=1))
    table = DOCUMENT.read_text(encoding="utf-8").split("## What is in a batch")[1].split("\n\n`actions")[0]
    assert set(batch) == {name for name in re.findall(r"`(\w+)`", table) if name in batch}
