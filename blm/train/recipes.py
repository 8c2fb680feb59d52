"""Complete configurations of training runs: for Stage II named ones, a base and then what each changes.

`tiny` learns on two CPU cores in minutes on cached intent tokens; `base` is sized like the paper's policy, for one or
more GPUs. Parts (policy, loop, reader) know nothing of recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import yaml

from blm.schemas.errors import ConfigError, UnknownNameError
from blm.schemas.yaml_model import validate
from blm.train.loop import LoopConfig
from blm.train.stage1 import Stage1Config
from blm.train.stage2 import Stage2Config

BASE: dict[str, Any] = {
    "policy": {
        "width": 1024,
        "layers": 16,
        "heads": 16,
        "queries": 32,
        "bridge_layers": 2,
        "cross_every": 2,
        "draws": 8,
        "state_dropout": 0.2,
    },
    "batch_size": 64,
    "steps": 30_000,
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "average_decay": 0.999,
    "precision": "bfloat16",
    "device": "cuda",
    "workers": 8,
    "log_every": 50,
    "checkpoint_every": 2000,
}

TINY: dict[str, Any] = BASE | {
    "policy": {
        "width": 128,
        "layers": 2,
        "heads": 4,
        "feed_forward": 2.0,
        "queries": 8,
        "bridge_layers": 1,
        "steps_per_token": 4,
        "draws": 2,
        "future_weight": 0.0,
    },
    "batch_size": 128,
    "steps": 800,
    "learning_rate": 2e-3,
    "weight_decay": 0.01,
    "average_decay": 0.98,
    "precision": "float32",
    "device": "cpu",
    "workers": 0,
    "log_every": 25,
    "checkpoint_every": 500,
}

RECIPES: dict[str, dict[str, Any]] = {"base": BASE, "tiny": TINY}


def stage2_config(recipe: str, overrides: Mapping[str, str] | None = None, **fields: Any) -> Stage2Config:
    """A recipe, then the given fields, then `--set` overrides.

    Args:
        recipe: 'tiny' or 'base'.
        overrides: dotted key → value as typed, e.g. {'policy.width': '256', 'cameras': '[top]'}; read as YAML.
        fields: `splits`, `output` and whatever else of Stage2Config the caller knows; None means not given.

    Raises:
        UnknownNameError: no such recipe.
        ConfigError: names the wrong key, what is wrong with it and what is allowed.
    """
    if recipe not in RECIPES:
        raise UnknownNameError("recipe", recipe, RECIPES)
    content = RECIPES[recipe] | {"recipe": recipe}
    return _filled(Stage2Config, content, fields, overrides, f"recipe '{recipe}'")


def stage1_config(overrides: Mapping[str, str] | None = None, **fields: Any) -> Stage1Config:
    """The defaults of `Stage1Config`, then the given fields, then `--set` overrides; see `stage2_config`."""
    return _filled(Stage1Config, {}, fields, overrides, "stage 1")


def _filled[Config: LoopConfig](
    config: type[Config],
    content: Mapping[str, Any],
    fields: Mapping[str, Any],
    overrides: Mapping[str, str] | None,
    source: str,
) -> Config:
    content = {**content, **{key: value for key, value in fields.items() if value is not None}}
    for key, value in (overrides or {}).items():
        content = _with(content, key.split("."), _parsed(key, value))
    return validate(config, content, "--set" if overrides else source)


def _with(content: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of `content` with the value at a nested path replaced."""
    head, *rest = path
    if not rest:
        return {**content, head: value}
    inner = content.get(head, {})
    if not isinstance(inner, Mapping):
        raise ConfigError(f"--set: '{head}' is a single value and has no key '{'.'.join(rest)}'.")
    return {**content, head: _with(inner, rest, value)}


def _parsed(key: str, value: str) -> Any:
    # YAML 1.1 reads 1e-3 as text; a number is meant.
    with suppress(ValueError):
        if "e" in value.lower():
            return float(value)
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set: the value of '{key}' is not readable: {value!r}.") from error
