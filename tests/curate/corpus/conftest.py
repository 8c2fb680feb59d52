from pathlib import Path

import pytest

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig, Source
from tests.curate.corpus.scenes import record_scenes


@pytest.fixture(scope="session")
def stacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes with a red and a green cube at random places; read only."""
    return record_scenes(tmp_path_factory.mktemp("recorded") / "stacking", episodes=6)


@pytest.fixture(scope="session")
def pushing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes with a blue cube and a goal on the table at random places; read only."""
    return record_scenes(tmp_path_factory.mktemp("recorded") / "pushing", task="push-cube", episodes=6)


@pytest.fixture(scope="session")
def cluttered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `pushing`, with two balls and a peg that the task is not about; read only."""
    distractors = [("orange", "sphere"), ("yellow", "peg"), ("green", "sphere")]
    root = tmp_path_factory.mktemp("recorded") / "cluttered"
    return record_scenes(root, task="push-cube", episodes=3, distractors=distractors)


@pytest.fixture(scope="session")
def corpus(stacking: Path, pushing: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty questions about each of those twelve episodes; read only."""
    output = tmp_path_factory.mktemp("corpora") / "built"
    build_corpus(
        CorpusConfig(
            sources=tuple(
                # The synthetic pictures do not show the things that were recorded.
                Source(kind="lerobot", path=path, options={"hidden_things": True})
                for path in (stacking, pushing)
            ),
            output=output,
            questions_per_episode=60,
            licence="cc-by-4.0",
        )
    )
    return output
