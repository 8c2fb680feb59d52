"""What every test runs under: no network, nothing written to the user's caches, reproducible property tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

CACHES = tempfile.mkdtemp(prefix="blm-tests-")

# Set before any test module imports the libraries that read them; child processes inherit them.
os.environ.update(
    HF_HOME=CACHES,
    HF_LEROBOT_HOME=os.path.join(CACHES, "lerobot"),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
    NO_COLOR="1",
)

# Machines that run this are often shared, so time per example says nothing about the code.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def _caches_of_this_run() -> Iterator[None]:
    yield
    shutil.rmtree(CACHES, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests without a GPU, looking for one (torch takes seconds to import) only if any was selected."""
    for_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not for_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in for_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
