"""A person at the operator's page: a session in a thread, and a real browser whose mouse and keys they move."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from blm.collect.live_config import LiveCollectConfig
from blm.collect.live_session import LiveSummary
from blm.collect.live_workcell import collect_live
from blm.schemas.rollout import Agent

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class Session:
    """`collect_live` in a thread; `url` is what it told the person to open, `told` all that it said."""

    def __init__(self, config: LiveCollectConfig, policy: Agent | None = None) -> None:
        self.url = ""
        self.told: list[str] = []
        self.summary: LiveSummary | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(config, policy), daemon=True)
        self._thread.start()

    def wait_for_url(self) -> str:
        wait_until(lambda: bool(self.url) or self.failure is not None, 60)
        assert self.failure is None, self.failure
        return self.url

    def result(self) -> LiveSummary:
        self._thread.join(60)
        assert self.failure is None, self.failure
        assert self.summary is not None, "the session did not end"
        return self.summary

    def failure_of(self, seconds: float) -> BaseException | None:
        """What the session ended with."""
        self._thread.join(seconds)
        return self.failure

    def _run(self, config: LiveCollectConfig, policy: Agent | None) -> None:
        def announce(line: str) -> None:
            self.told.append(line)
            if line.startswith("open "):
                self.url = line.removeprefix("open ")

        try:
            self.summary = collect_live(config, policy, announce=announce)
        except BaseException as error:
            self.failure = error


class Person:
    """Looks at the page, moves the mouse and presses keys."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def phase_is(self, phase: str, seconds: float = 60) -> None:
        self.page.wait_for_selector(f'body[data-phase="{phase}"]', timeout=1000 * seconds)

    def click(self, name: str) -> None:
        """Click a button by what it says."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def hold(self, key: str, until: Callable[[], bool], seconds: float = 60) -> None:
        """Hold a key down until something has happened."""
        self.page.keyboard.down(key)
        try:
            wait_until(until, seconds)
        finally:
            self.page.keyboard.up(key)

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
        wait_until(lambda: abs(self.tool()[2] - height) < 0.008, 90)

    def arrive(self, to: np.ndarray, within_m: float = 0.015) -> None:
        """Wait until the tool is above a point (2,)."""
        wait_until(lambda: bool(np.hypot(*(self.tool()[:2] - to)) < within_m), 90)

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


@contextmanager
def at_page(url: str, width: int = 900, height: int = 640) -> Iterator[Person]:
    """A person with the page open in Chromium; an error in the page's script fails the test."""
    from playwright.sync_api import sync_playwright

    failures: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(url)
        yield Person(page)
        browser.close()
    assert failures == []


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()
