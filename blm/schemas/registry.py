"""Find named YAML contracts: those shipped with the package, entry points of other packages, and user files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from blm.schemas.errors import ConfigError, UnknownNameError


def named_files(folder: str, entry_point_group: str) -> dict[str, Path]:
    """Map name → YAML file: built in under `blm/schemas/<folder>`, then entry points of `entry_point_group`.

    An entry point's object is a path (or a function returning one) to a YAML file; its name is the contract's name.
    """
    found = {path.stem: path for path in _shipped(folder)}
    for entry_point in _entry_points(entry_point_group, tuple(sys.path)):
        target: Any = entry_point.load()
        found[entry_point.name] = Path(str(target() if callable(target) else target))
    return found


def resolve_file(kind: str, name: str, folder: str, entry_point_group: str) -> Path:
    """Return the file of a named contract, or `name` itself where it is the path of a YAML file.

    Raises:
        UnknownNameError: no such name; lists those known.
        ConfigError: a path was given and no file is there.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(
                f"{path} does not exist.", f"Give the path of {kind} YAML file or a known name."
            )
        return path
    known = named_files(folder, entry_point_group)
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


@lru_cache(maxsize=8)
def _entry_points(group: str, search_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Looking through every installed distribution takes 30 ms; what is installed changes with `search_path` only."""
    return tuple(entry_points(group=group))


def _shipped(folder: str) -> Iterator[Path]:
    root = Path(str(files("blm.schemas"))) / folder
    yield from sorted(root.glob("*.yaml"))
