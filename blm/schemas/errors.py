"""Everything `blm` raises on purpose: one small family, each with a message and a remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any


class BlmError(Exception):
    """Base of all expected errors.

    The command line prints `message`, then `remedy`, and exits with `exit_code` (1 = the work failed).
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def __reduce__(self) -> tuple[Callable[..., BlmError], tuple[Any, ...]]:
        """Errors travel between processes whole, whatever arguments their class takes."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[BlmError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> BlmError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


class UsageError(BlmError):
    """What was asked for makes no sense as typed (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or `--set` value is wrong; the message names the file and the key."""


class UnknownNameError(UsageError):
    """A name that is not in a registry; the message lists what is."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = get_close_matches(name, known, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else ""
        super().__init__(f"{kind} '{name}' not found; there are: {', '.join(known)}.", hint)
        self.kind, self.name, self.known = kind, name, known


class MissingExtraError(BlmError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"'{library}' is not installed.", f"Install it with: pip install 'blm[{extra}]'")


class DatasetError(BlmError):
    """A dataset, corpus, shard or manifest on disk is missing, broken or of the wrong kind."""


class OutputExistsError(UsageError):
    """The output is there already and would be overwritten."""


class SimulationError(BlmError):
    """The simulator or its renderer cannot do what was asked."""


class PlanningError(BlmError):
    """No feasible motion was found; the message names the primitive and the cause."""


class HardwareError(BlmError):
    """A robot, camera or operator device is absent or does not answer."""


class EngineError(BlmError):
    """The cluster that should do the work cannot be reached, or gave up."""


class CheckpointError(BlmError):
    """A checkpoint is missing, incomplete, or does not fit the model or the data."""
