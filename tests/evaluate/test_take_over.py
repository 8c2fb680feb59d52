"""A trained checkpoint drives a simulated arm, and a person at the page takes over and gives back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("aiohttp")
pytest.importorskip("torch")

from blm.collect.live_config import LiveCollectConfig
from blm.collect.session import CollectConfig, collect
from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.evaluate.agents import policy_agent
from blm.train.recipes import stage2_config
from blm.train.stage2 import train_stage2
from tests.collect.operators.page_person import Person, Session, at_page, needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]
SIDE = 64


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after four steps on four demonstrations: it knows little, but all its parts are there."""
    folder = tmp_path_factory.mktemp("policy")
    demonstrations = CollectConfig(
        robot="so100", task="push-cube", episodes=4, output=folder / "dataset", image_size=SIDE, shadows=False
    )
    collect(demonstrations)
    build_splits(
        SplitsConfig(datasets=(DatasetSource(path=folder / "dataset"),), output=folder / "splits", workers=1)
    )
    small = {"policy.width": "32", "policy.queries": "4", "horizon": "8", "batch_size": "8"}
    train_stage2(
        stage2_config(
            "tiny", small, splits=folder / "splits", output=folder / "run", steps=4, cameras=("top",)
        )
    )
    return folder / "run"


def test_who_drove_is_known_of_every_frame(run: Path, tmp_path: Path):
    policy, side = policy_agent(run)
    session = Session(
        LiveCollectConfig(
            robot="so100",
            task="push-cube",
            episodes=1,
            operator=f"policy:{run}",
            output=tmp_path / "data",
            image_size=side,
            shadows=False,
            episode_s=300,
        ),
        policy,
    )
    with at_page(session.wait_for_url()) as person:
        _correct(person)
    assert session.result().kept == 1
    table = pq.read_table(tmp_path / "data" / "data")
    intervention = np.array(table["intervention"].to_pylist())
    names = {row["subtask_index"]: row["subtask"] for row in _rows(tmp_path / "data/meta/subtasks.parquet")}
    drove = np.array([names[index] == "take-over" for index in table["subtask_index"].to_pylist()])
    assert intervention.dtype == bool
    assert (intervention == drove).all()
    changes = np.flatnonzero(np.diff(intervention.astype(int)))
    assert len(changes) == 2, "the policy, the person, the policy again"
    assert not intervention[[0, -1]].any()
    (episode,) = _rows(tmp_path / "data/meta/episodes/chunk-000/file-000.parquet")
    assert episode["blm/operator"] == f"policy:{run.name}"
    _opens_in_lerobot(tmp_path / "data", intervention)


def _correct(person: Person) -> None:
    """Watch the policy, take over, lift the gripper by two centimetres, give back."""
    page = person.page
    person.phase_is("ready")
    person.click("Start")
    person.phase_is("recording")
    assert page.locator("#driver").inner_text() == "the policy drives"
    assert page.locator("#height").is_disabled()
    time.sleep(1.0)
    person.click("Take over")
    page.wait_for_selector("body.intervening", timeout=60_000)
    assert page.locator("#driver").inner_text() == "you drive"
    height = person.tool()[2]
    person.hold("i", until=lambda: person.tool()[2] > height + 0.02)
    person.press("h")
    page.wait_for_selector("body:not(.intervening)", timeout=60_000)
    time.sleep(1.0)
    person.click("End episode")
    person.phase_is("review")
    person.click("Keep")
    person.phase_is("done")


def _rows(file: Path) -> list[Mapping[str, Any]]:
    return pq.read_table(file).to_pylist()


def _opens_in_lerobot(root: Path, intervention: np.ndarray) -> None:
    pytest.importorskip("lerobot")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/corrected", root=root)
    told: Any = dataset.hf_dataset.with_format("numpy")["intervention"]
    assert (np.array(told).astype(bool).ravel() == intervention).all()
