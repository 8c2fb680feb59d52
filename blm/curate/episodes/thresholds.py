"""What a user may say about checks: a severity and a threshold for each reason, and what counts as idle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field, model_validator

from blm.curate.episodes.reasons import ALWAYS_DROPPED, RULES, Reason, Rule, Severity
from blm.schemas.errors import ConfigError
from blm.schemas.yaml_model import FrozenModel


class Thresholds(FrozenModel):
    """When an episode is dropped, and what counts as idle.

    Speed is the fastest axis' displacement over 0.2 s, as a fraction of that axis' range per second, the larger of
    the measured and the commanded one: 0.02 of an SO-100's shoulder is 4.4 degrees per second.
    """

    require_success: bool = Field(default=True, description="drop episodes known to have failed")
    min_duration_s: float = Field(default=0.5, ge=0, description="after trimming")
    max_duration_ratio: float = Field(
        default=4.0, gt=1, description="× the median of the same robot and task, after trimming"
    )
    idle_speed: float = Field(
        default=0.02, ge=0, description="below this nothing moves; axis ranges per second"
    )
    idle_margin_s: float = Field(default=0.25, ge=0, description="idle time kept before and after the motion")


class CheckSetting(FrozenModel):
    """How one reason is to be judged; what is not given stays as it is. In YAML a severity may stand alone."""

    severity: Severity | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _severity_alone(cls, value: Any) -> Any:
        """`off` without quotes is YAML's false."""
        if isinstance(value, dict):
            return value | {"severity": "off"} if value.get("severity") is False else value
        if value is False or isinstance(value, str):
            return {"severity": value or "off"}
        return value


def resolve_rules(
    thresholds: Thresholds, checks: Mapping[Reason, CheckSetting] | None = None
) -> dict[Reason, Rule]:
    """The rule of every reason: the default, changed by `thresholds`, changed by `checks`.

    Raises:
        ConfigError: an episode of which nothing can be read is to be kept.
    """
    rules = dict(RULES)
    rules["too_short"] = replace(rules["too_short"], threshold=thresholds.min_duration_s)
    rules["too_long"] = replace(rules["too_long"], threshold=thresholds.max_duration_ratio)
    rules["idle_episode"] = replace(rules["idle_episode"], threshold=thresholds.idle_speed)
    if not thresholds.require_success:
        rules["not_successful"] = replace(rules["not_successful"], severity="off")
    for reason, setting in (checks or {}).items():
        if reason in ALWAYS_DROPPED and setting.severity not in (None, "drop"):
            raise ConfigError(
                f"`checks`: {reason} cannot be '{setting.severity}': there is nothing to keep of such an episode.",
                "Leave it at 'drop'.",
            )
        rules[reason] = replace(rules[reason], **setting.model_dump(exclude_none=True))
    return rules
