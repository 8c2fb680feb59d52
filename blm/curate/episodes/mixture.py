"""How often each group of training windows is drawn: shares that the manifest carries and the reader honours.

A group is `<dataset>/<embodiment>/<task>`. A strategy shares the whole out among datasets, embodiments or tasks
(`by`); within each of those, groups keep the proportions of their windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from blm.schemas.errors import ConfigError
from blm.schemas.manifest import Mixture
from blm.schemas.yaml_model import FrozenModel

_PLACES = {"dataset": 0, "embodiment": 1, "task": 2}
_DIGITS = 12
"""Significant digits kept, so that no digit depends on the machine's power function."""


class MixtureConfig(FrozenModel):
    """'natural': by windows. 'balanced': the same for each. 'temperature': windows^(1 / T). 'explicit': `weights`."""

    strategy: Literal["natural", "balanced", "temperature", "explicit"] = "natural"
    by: Literal["dataset", "embodiment", "task"] = Field(
        default="embodiment", description="what is shared out"
    )
    temperature: float | None = Field(
        default=None, ge=1, description="1 is natural; large values approach balanced"
    )
    weights: dict[str, float] | None = Field(
        default=None, description="name → weight; need not add up to 1; 0 leaves out"
    )

    @model_validator(mode="after")
    def _fits_the_strategy(self) -> Self:
        for key, strategy in (("temperature", "temperature"), ("weights", "explicit")):
            if (getattr(self, key) is not None) != (self.strategy == strategy):
                raise ValueError(f"`{key}` belongs to strategy '{strategy}', and only there")
        if self.weights is not None:
            if any(not 0 <= weight < float("inf") for weight in self.weights.values()):
                raise ValueError("weights must be numbers from 0 up")
            if not sum(self.weights.values()) > 0:
                raise ValueError("at least one weight must be above 0")
        return self


def group_label(dataset: str, embodiment: str, task: str) -> str:
    """The key of a group in `Mixture.weights`."""
    return f"{dataset}/{embodiment}/{task}"


def mixture_of(windows: Mapping[str, int], config: MixtureConfig) -> Mixture:
    """The share of each group of training windows; the shares add up to 1.

    Args:
        windows: windows per group label, training split only, each at least 1.

    Raises:
        ConfigError: explicit weights name something that is not there, or leave something out; lists what is.
    """
    whole: dict[str, int] = {}
    for label, count in windows.items():
        name = _named(label, config)
        whole[name] = whole.get(name, 0) + count
    shares = _shares(whole, config)
    total = sum(shares.values())
    weights = {
        label: shares[_named(label, config)] / total * (count / whole[_named(label, config)])
        for label, count in sorted(windows.items())
    }
    return Mixture(
        strategy=config.strategy,
        weights={label: float(f"{weight:.{_DIGITS}g}") for label, weight in weights.items()},
    )


def _named(label: str, config: MixtureConfig) -> str:
    return label.split("/", 2)[_PLACES[config.by]]


def _shares(whole: Mapping[str, int], config: MixtureConfig) -> dict[str, float]:
    """Unnormalised, in sorted order, so that sums do not depend on the order of the inputs."""
    names = sorted(whole)
    if config.strategy == "balanced":
        return dict.fromkeys(names, 1.0)
    if config.strategy == "temperature":
        largest = max(whole.values())
        return {name: (whole[name] / largest) ** (1 / (config.temperature or 1)) for name in names}
    if config.weights is not None:
        return _explicit(config.weights, names, config.by)
    return {name: float(whole[name]) for name in names}


def _explicit(weights: Mapping[str, float], names: list[str], by: str) -> dict[str, float]:
    if unknown := sorted(set(weights) - set(names)):
        raise ConfigError(
            f"mixture: {by} '{unknown[0]}' has no training samples; there are: {', '.join(names)}.",
            "Mend `mixture.weights`.",
        )
    if absent := [name for name in names if name not in weights]:
        raise ConfigError(
            f"mixture: {by} '{absent[0]}' has no weight; there are: {', '.join(names)}.",
            "Give each one a weight; 0 leaves it out of training.",
        )
    if not any(weights[name] for name in names):
        raise ConfigError(f"mixture: every {by} that is there has weight 0.", "Give at least one a weight.")
    return {name: float(weights[name]) for name in names}
