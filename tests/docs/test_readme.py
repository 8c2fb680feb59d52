from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _tree() -> str:
    return README.split("## Where things are", 1)[1]


@pytest.mark.parametrize(
    "path",
    sorted(path.relative_to(ROOT) for path in (ROOT / "blm").rglob("*.py") if path.name != "__init__.py"),
    ids=str,
)
def test_the_tree_has_every_module(path):
    by_folder = path.parent.name == "questions" and "questions/*.py" in _tree()
    assert by_folder or path.name in _tree()


def test_the_tree_names_no_file_that_is_not_there():
    names = {
        path.name for folder in ("blm", "tools") for path in (ROOT / folder).rglob("*") if path.is_file()
    }
    listed = [word.rstrip(",") for line in _tree().splitlines() for word in line.split()[:2]]
    files = [word for word in listed if word.endswith(".py") and "*" not in word]
    assert len(files) > 60
    assert [name for name in files if Path(name).name not in names] == []


def test_the_five_robots_and_six_tasks_are_named():
    for folder in ("embodiments", "tasks"):
        for path in (ROOT / "blm" / "schemas" / folder).glob("*.yaml"):
            assert f"`{path.stem}`" in README
