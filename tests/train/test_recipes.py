from __future__ import annotations

from pathlib import Path

import pytest

from blm.schemas.errors import ConfigError, UnknownNameError
from blm.train.recipes import RECIPES, stage2_config


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_complete(name: str) -> None:
    config = stage2_config(name, splits=Path("s"), output=Path("o"))
    assert config.recipe == name
    assert config.horizon % config.policy.steps_per_token == 0


def test_overrides_reach_nested_keys_and_leave_the_recipe_alone() -> None:
    given = {
        "policy.width": "64",
        "learning_rate": "3e-4",
        "cameras": "[top, wrist]",
        "average_decay": "null",
    }
    config = stage2_config("tiny", given, splits="s", output="o", steps=None, seed=5)
    assert config.policy.width == 64
    assert config.learning_rate == 3e-4
    assert config.cameras == ("top", "wrist")
    assert config.average_decay is None
    assert config.seed == 5
    assert config.steps == RECIPES["tiny"]["steps"]
    assert RECIPES["tiny"]["policy"]["width"] != 64


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("learnig_rate", "1", "unknown key 'learnig_rate'.*learning_rate"),
        ("policy.widht", "1", "unknown key 'policy.widht'.*width"),
        ("steps", "many", "key 'steps'.*'many'"),
        ("policy.width", "30", r"width \(30\) must be a multiple of heads"),
        ("steps.x", "1", "'steps' is a single value"),
        ("cameras", "[top", "'cameras' is not readable"),
        ("cameras", "[side", "'cameras' is not readable"),
    ],
)
def test_wrong_overrides_are_named(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage2_config("tiny", {key: value}, splits="s", output="o")


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(UnknownNameError, match="base, tiny"):
        stage2_config("huge", splits="s", output="o")
