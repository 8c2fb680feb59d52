"""The configuration in docs/splits.md is one that a build takes."""

import re
from pathlib import Path

from blm.curate.episodes.config import read_splits_config
from blm.curate.episodes.splits import split_names

PAGE = Path(__file__).resolve().parents[2] / "docs/splits.md"


def test_the_example_is_a_valid_configuration(tmp_path):
    (example,) = re.findall(
        r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    path = tmp_path / "splits.yaml"
    path.write_text(example)
    config = read_splits_config(path)
    assert len(config.datasets) == 3
    assert split_names(config)[3:] == (
        "test-unseen-robot",
        "test-unseen-task",
        "test-far-left",
        "test-unseen-wording",
    )
    assert config.mixture is not None
