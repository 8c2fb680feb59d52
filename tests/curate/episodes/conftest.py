import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories import make_dataset


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pushes of 24 frames, two cameras of 64 × 64; read only."""
    return make_dataset(tmp_path_factory.mktemp("recorded") / "pushes", episodes=8, frames=24, image_size=64)


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of `recorded` to change."""

    def make(name: str = "pushes") -> Path:
        return Path(shutil.copytree(recorded, tmp_path / "inputs" / name))

    return make
