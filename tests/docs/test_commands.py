"""The command line explains itself, and what the documents tell people to type exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from blm.cli import app

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?:bash|sh|shell|console|text)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def commands() -> dict[str, Any]:
    """Every command a user can run, by its full spelling."""
    return dict(_walk("blm", typer.main.get_command(app)))


def _walk(spelling: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    # A group that does something by itself (`blm collect` beside `blm collect suite`) is a command too.
    if not children or getattr(command, "invoke_without_command", False):
        yield spelling, command
    for name, child in children.items():
        if not child.hidden:
            yield from _walk(f"{spelling} {name}", child)


def documents() -> dict[str, str]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def typed_lines(document: str) -> list[str]:
    """Lines of shell blocks that run blm; those with [optional] parts are a synopsis, not something to type."""
    lines = []
    for block in FENCE.findall(document):
        for line in block.replace("\\\n", " ").splitlines():
            typed = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if typed.startswith("blm ") and "[" not in typed:
                lines.append(typed)
    return lines


def check_typed(line: str) -> None:
    """Raise if `line` names a command or an option that does not exist."""
    words = re.split(r"[;&|>]", line)[0]
    arguments = shlex.split(words, comments=True)[1:]
    command = typer.main.get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command = command.commands[arguments.pop(0)]  # pyright: ignore[reportAttributeAccessIssue]
    is_bare_group = getattr(command, "commands", {}) and not getattr(command, "invoke_without_command", False)
    assert not is_bare_group or arguments[:1] in (["--help"], ["--version"]), f"no such command: {line}"
    known = {
        spelling for parameter in command.params for spelling in (*parameter.opts, *parameter.secondary_opts)
    }
    used = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    unknown = used - known - {"--help"}
    assert not unknown, f"{line}\n  {sorted(unknown)} not among {sorted(known)}"


def test_there_are_commands() -> None:
    assert {"blm collect", "blm train stage2", "blm evaluate physical"} <= commands().keys()


@pytest.mark.parametrize("spelling", commands())
def test_every_command_has_help_with_an_example(spelling: str) -> None:
    text = commands()[spelling].help or ""
    assert len(text.split("\n")[0].split()) >= 3, (
        "the first line of the help is too short to say what it does"
    )
    assert re.search(rf"examples?:.*\b{re.escape(spelling)}\b", text, re.IGNORECASE | re.DOTALL), (
        f"add 'Example: {spelling} …' to the docstring"
    )


@pytest.mark.parametrize("spelling", commands())
def test_every_option_has_help(spelling: str) -> None:
    without = [
        p.name for p in commands()[spelling].params if not getattr(p, "help", None) and p.name != "help"
    ]
    assert not without


@pytest.mark.parametrize("spelling", commands())
def test_every_command_is_in_the_readme(spelling: str) -> None:
    assert spelling in documents()["README.md"]


@pytest.mark.parametrize(
    "name", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
)
def test_documented_commands_exist(name: str) -> None:
    for line in typed_lines(documents()[name]):
        check_typed(line)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no such command"):
        check_typed("blm frobnicate")
    with pytest.raises(AssertionError, match="--colour"):
        check_typed("blm --colour red --help")


@pytest.mark.parametrize(
    "name", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
)
def test_relative_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", documents()[name])
    missing = [t for t in targets if "://" not in t and not ((ROOT / name).parent / t).exists()]
    assert not missing


def test_the_readme_names_every_make_target_it_should() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"setup", "demo", "test", "check", "bench"} <= set(targets)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", documents()["README.md"], re.MULTILINE))
    assert {"demo", "test", "check"} <= named <= set(targets)
