"""Rules of the house that no single room's tests would notice breaking."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "lerobot", "mujoco", "duckdb", "datasets", "transformers"}
EXTRAS = HEAVY | {"mink", "ruckig", "torchvision", "accelerate", "peft", "safetensors", "tokenizers", "ray"}

REPORT_MODULES = """
import json, sys
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
SHOW_HELP = """
import sys
from blm.cli import app
try:
    app({arguments!r}, prog_name="blm")
except SystemExit as stopped:
    assert not stopped.code, stopped.code
"""


def modules_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code` has run."""
    finished = subprocess.run(
        [sys.executable, "-c", code + REPORT_MODULES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-500:]
    return set(json.loads(finished.stdout.splitlines()[-1]))


def test_the_probe_sees_a_heavy_import() -> None:
    assert "duckdb" in modules_after("import duckdb")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["collect", "--help"], ["train", "stage2", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert not modules_after(SHOW_HELP.format(arguments=arguments)) & HEAVY


def test_schemas_import_without_any_extra() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "blm" / "schemas").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert "blm.schemas.errors" in modules
    # None in sys.modules makes an import of that name fail, as it would in a plain install.
    refuse_extras = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXTRAS)!r}))\n"
    modules_after(refuse_extras + "import blm.schemas, " + ", ".join(modules))


def tracked_text() -> dict[str, str]:
    """Every file under version control that is text, by its path."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content:
            texts[name] = content.decode("utf-8")
    return texts


# Written in pieces, so that this file passes its own test.
FORBIDDEN = {
    "a registry address": "|".join(
        r"\.".join(parts)
        for parts in (
            ("pypi", "org"),
            ("files", "pythonhosted"),
            ("registry", "npmjs"),
            ("deb", "debian", "org"),
        )
    ),
    "a path of one machine": r"(?<![\w.:/-])/(?:work|root|(?:home|Users)/\w+)/" + r"\w",
}


def forbidden_lines(name: str, text: str) -> list[str]:
    return [
        f"{name}:{number} holds {what}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FORBIDDEN.items()
        if re.search(pattern, line)
    ]


def test_the_search_for_machine_details_finds_them() -> None:
    assert forbidden_lines("x", "see " + "/ro" + "ot/data/x")
    assert forbidden_lines("x", "https://" + "pypi" + ".org/simple")
    assert not forbidden_lines("x", "docs/work/plan.md and https://example.com/home/page")


def test_tracked_files_name_no_machine_path_and_no_registry() -> None:
    texts = tracked_text()
    assert "pyproject.toml" in texts
    assert not [line for name, text in texts.items() for line in forbidden_lines(name, text)]
