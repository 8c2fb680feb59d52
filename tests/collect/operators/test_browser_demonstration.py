"""A person's demonstration through the page, in a real browser: every motion is a mouse or a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blm.collect.live_config import LiveCollectConfig
from tests.collect.operators.page_person import Person, Session, at_page, needs_chromium

pytest.importorskip("playwright.sync_api")
pytest.importorskip("aiohttp")
pytestmark = needs_chromium


@pytest.mark.slow
def test_a_cube_is_pushed_to_its_goal_through_the_page(tmp_path: Path):
    output = tmp_path / "data"
    session = Session(
        LiveCollectConfig(
            robot="so100",
            task="push-cube",
            episodes=1,
            seed=0,
            operator="browser",
            output=output,
            image_size=64,
            shadows=False,
            episode_s=120,
        )
    )
    with at_page(session.wait_for_url()) as person:
        person.phase_is("ready")
        person.click("Start")
        person.phase_is("recording")
        _push(person)
        person.phase_is("review", 40)
        assert "solved" in person.page.locator("#note").inner_text()
        person.press("ArrowRight")
        person.phase_is("done")
    summary = session.result()
    assert (summary.kept, summary.episodes, summary.dropped) == (1, 1, 0)
    _check_dataset(output)


def _push(person: Person) -> None:
    cube, goal = person.shape([0.1, 0.25, 0.85, 1.0]), person.shape([0.8, 0.2, 0.2, 1.0])
    person.press("g")
    person.slide("tilt", "12")
    ahead = (goal - cube)[:2] / np.hypot(*(goal - cube)[:2])
    behind = cube[:2] - 0.05 * ahead
    person.drag(behind)
    person.arrive(behind)
    person.lower(0.018)
    person.drag(goal[:2] - 0.012 * ahead)


def _check_dataset(output: Path) -> None:
    pytest.importorskip("lerobot")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/browser", root=output)
    assert dataset.num_episodes == 1
    last: dict[str, Any] = dataset[len(dataset) - 1]  # type: ignore[assignment]
    assert bool(last["next.success"])
    assert last["observation.images.top"].shape == (3, 64, 64)
    episodes: Any = dataset.meta.episodes
    assert list(episodes["blm/operator"]) == ["browser"]
