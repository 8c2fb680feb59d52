"""Read YAML into frozen pydantic models, with errors that name the file, the key and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from blm.schemas.errors import ConfigError


class FrozenModel(BaseModel):
    """Base of all configuration and contract models: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, is not UTF-8 YAML, or does not hold a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist.", "Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {_where(error)}.", "Mend the file.") from error
    if content is None:
        raise ConfigError(f"{path} is empty.", "Write its keys into it.")
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of keys, not {type(content).__name__}.", "")
    return content


def _where(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """What is wrong with a text, and in which line; in one line itself."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8"
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return (
        f"{getattr(error, 'problem', 'it makes no sense')} (line {mark.line + 1}, column {mark.column + 1})"
    )


def validate[Model: BaseModel](model: type[Model], content: Mapping[str, Any], source: str) -> Model:
    """Validate `content` as `model`; `source` (a file name, `--set`, …) is named in the error.

    Raises:
        ConfigError: naming the first wrong key, why it is wrong and, for an unknown key, the allowed ones.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(*_explain(model, error, source)) from error


def _explain(model: type[BaseModel], error: ValidationError, source: str) -> tuple[str, str]:
    # A list whose elements are wrong is reported as too short as well.
    problems = [one for one in error.errors() if one["type"] != "too_short"] or error.errors()
    first = problems[0]
    # Of several types that a key may have, pydantic puts one's name, like 'dict[str,float]', into the place.
    key = ".".join(str(part) for part in first["loc"] if "[" not in str(part)) or "(top level)"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        owner = _owner(model, first["loc"][:-1])
        allowed = f"Allowed here: {', '.join(owner.model_fields)}." if owner else ""
        return f"{source}: unknown key '{key}'.{more}", allowed
    if first["type"] == "missing":
        return f"{source}: key '{key}' is missing.{more}", "Add it."
    return f"{source}: key '{key}': {_plain(first['msg'])}; got {first['input']!r}.{more}", ""


def _plain(message: str) -> str:
    """What pydantic says, in the words of YAML."""
    return (
        message.removeprefix("Value error, ")
        .replace("a valid tuple", "a list")
        .replace("a valid dictionary", "a mapping")
    )


def _owner(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Follow a pydantic error location to the model whose key it is."""
    owner: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(owner, "model_fields", {}).get(part)
        if field is None:
            continue
        owner = _model_in(field.annotation)
    return owner


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_in(argument):
            return found
    return None
