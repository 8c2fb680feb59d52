"""A person's demonstration through the page, in a real browser: every motion is a mouse or a key."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blm.collect.live_session import LiveSummary
from blm.collect.live_workcell import LiveCollectConfig, collect_live

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("aiohttp")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class Session:
    """`collect_live` in a thread; `url` is what it told the person to open."""

    def __init__(self, config: LiveCollectConfig) -> None:
        self.url = ""
        self.summary: LiveSummary | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(config,), daemon=True)
        self._thread.start()

    def wait_for_url(self) -> str:
        wait_until(lambda: bool(self.url) or self.failure is not None, 30)
        assert self.failure is None, self.failure
        return self.url

    def result(self) -> LiveSummary:
        self._thread.join(30)
        assert self.failure is None, self.failure
        assert self.summary is not None, "the session did not end"
        return self.summary

    def _run(self, config: LiveCollectConfig) -> None:
        def announce(line: str) -> None:
            if line.startswith("open "):
                self.url = line.removeprefix("open ")

        try:
            self.summary = collect_live(config, announce=announce)
        except BaseException as error:
            self.failure = error


class Person:
    """Looks at the page and moves the mouse."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def phase_is(self, phase: str, seconds: float = 20) -> None:
        self.page.wait_for_selector(f'body[data-phase="{phase}"]', timeout=1000 * seconds)

    def drag(self, to: np.ndarray) -> None:
        """Drag the handle over the table to above a point (2,), base frame."""
        start = self._pixel(self.wish())
        end = self._pixel([*to, self.wish()[2]])
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=8)
        self.page.mouse.up()

    def slide(self, name: str, value: str) -> None:
        """Move a slider."""
        self.page.locator(f"#{name}").fill(value)

    def lower(self, height: float) -> None:
        """Lower the gripper to a height, metres: mostly by the slider, the last bit by the wheel over the handle."""
        self.slide("height", f"{height + 0.005:.3f}")
        self.page.mouse.move(*self._pixel(self.wish()))
        self.page.mouse.wheel(0, 100)
        wait_until(lambda: abs(self.wish()[2] - height) < 0.002, 5)
        wait_until(lambda: abs(self.tool()[2] - height) < 0.008, 20)

    def arrive(self, to: np.ndarray) -> None:
        wait_until(lambda: bool(np.hypot(*(self.tool()[:2] - to)) < 0.015), 20)

    def wish(self) -> list[float]:
        return self.page.evaluate("wish.position")

    def tool(self) -> np.ndarray:
        return np.array(self.page.evaluate("tool")[:3])

    def shape(self, colour: list[float]) -> np.ndarray:
        """Where the page draws the first shape of a colour, base frame (3,)."""
        found = self.page.evaluate(
            "(c) => { const g = view.geoms.findIndex((s) => s.colour.every((v, i) => Math.abs(v - c[i]) < 0.01));"
            " return Array.from(view.poses.subarray(7 * g, 7 * g + 3)); }",
            colour,
        )
        return np.array(found)

    def _pixel(self, point: Any) -> tuple[float, float]:
        x, y = self.page.evaluate("(p) => view.project(p)", [float(value) for value in point])
        box = self.page.locator("#view").bounding_box()
        return box["x"] + x, box["y"] + y


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


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
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 900, "height": 640})
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(session.wait_for_url())
        person = Person(page)
        person.phase_is("ready")
        page.get_by_role("button", name="Start").click()
        person.phase_is("recording")
        _push(person)
        person.phase_is("review", 40)
        assert "solved" in page.locator("#note").inner_text()
        page.keyboard.press("ArrowRight")
        person.phase_is("done")
        browser.close()
    assert failures == []
    summary = session.result()
    assert (summary.kept, summary.episodes, summary.dropped) == (1, 1, 0)
    _check_dataset(output)


def _push(person: Person) -> None:
    cube, goal = person.shape([0.1, 0.25, 0.85, 1.0]), person.shape([0.8, 0.2, 0.2, 1.0])
    person.page.keyboard.press("g")
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
