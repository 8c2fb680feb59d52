"""Who may open the page, what it may say, and what it shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from blm.collect.controls import Control, Phase
from blm.collect.live_session import SessionStatus
from blm.collect.operators.browser_agent import BrowserAgent
from blm.collect.operators.browser_link import FRESH_S, BrowserLink, MessageError, wish_to_json
from blm.collect.operators.browser_server import BrowserServer
from blm.collect.operators.scene_view import SceneView
from blm.collect.operators.tool_driver import ToolDriver
from blm.collect.operators.tool_wish import ToolWish
from blm.schemas.errors import HardwareError, UsageError
from tests.collect.sim.scenes import environment

aiohttp = pytest.importorskip("aiohttp")

WISH = ToolWish(np.array([0.2, 0.0, 0.1]), 0.1, 0.2, 0.5)


@pytest.fixture
def link() -> BrowserLink:
    return BrowserLink(lambda control: None)


@pytest.fixture
def server(link: BrowserLink) -> Iterator[BrowserServer]:
    with BrowserServer(link) as running:
        yield running


def answer(url: str, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
    async def get() -> tuple[int, str, dict[str, str]]:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            return response.status, await response.text(), dict(response.headers)

    return asyncio.run(get())


def socket_status(url: str, origin: str | None) -> int:
    """101 where the socket opens, otherwise what was answered."""

    async def connect() -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(url, headers={"Origin": origin} if origin else {}):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    return asyncio.run(connect())


def address(server: BrowserServer) -> tuple[str, str]:
    parts = urlsplit(server.url)
    return parts.netloc, parts.query


def test_the_page_needs_its_token(server: BrowserServer):
    host, _ = address(server)
    status, text, headers = answer(server.url)
    assert status == 200
    assert "<canvas" in text
    assert "{{" not in text
    assert "http" not in text.replace("ws://", ""), "nothing is loaded from elsewhere"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    for query in ("", "?token=", "?token=wrong"):
        assert answer(f"http://{host}/{query}")[0] == 403


def test_a_foreign_name_for_this_machine_is_refused(server: BrowserServer):
    host, _ = address(server)
    port = host.rpartition(":")[2]
    assert answer(server.url, {"Host": f"evil.example:{port}"})[0] == 403
    assert answer(server.url, {"Host": "127.0.0.1:1"})[0] == 403
    assert answer(server.url, {"Host": f"localhost:{port}"})[0] == 200


def test_the_socket_needs_token_and_origin(server: BrowserServer):
    host, query = address(server)
    assert socket_status(f"http://{host}/socket?{query}", f"http://{host}") == 101
    for origin in ("http://evil.example", f"https://{host}", "null", None):
        assert socket_status(f"http://{host}/socket?{query}", origin) == 403
    assert socket_status(f"http://{host}/socket?token=wrong", f"http://{host}") == 403
    assert socket_status(f"http://{host}/socket", f"http://{host}") == 403


def test_the_page_is_for_this_machine_unless_asked(link: BrowserLink):
    assert BrowserServer(link).warning == ""
    assert "move the robot" in BrowserServer(link, bind="0.0.0.0").warning
    with pytest.raises(UsageError, match=r"'robot.local' is no IP address"):
        BrowserServer(link, bind="robot.local")


def test_a_port_in_use_is_named(server: BrowserServer, link: BrowserLink):
    port = int(address(server)[0].rpartition(":")[2])
    with pytest.raises(HardwareError, match=rf"127.0.0.1:{port}.*--web-port"):
        BrowserServer(link, port=port).start()


def test_a_socket_steers_and_its_end_is_noticed():
    pressed: list[Control] = []
    gone: list[bool] = []
    link = BrowserLink(pressed.append)
    link.begin(WISH)

    async def drive(url: str, origin: str) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(url, headers={"Origin": origin}) as channel:
                first = json.loads((await channel.receive()).data)
                await channel.send_str("nonsense")
                await channel.send_json({"type": "control", "control": "advance"})
                await channel.send_json(
                    {"type": "wish", "epoch": 1} | wish_to_json(WISH) | {"position": [0.3, 0, 0]}
                )
                for _ in range(50):
                    await asyncio.sleep(0.02)
                    if pressed and (wish := link.wanted()) is not None and wish.position[0] == 0.3:
                        break
                async with session.ws_connect(url, headers={"Origin": origin}) as second:
                    closed = await channel.receive(timeout=3)
                    assert (closed.type, channel.close_code) == (aiohttp.WSMsgType.CLOSE, 4001)
                    await second.close()
            return [first]

    with BrowserServer(link, on_gone=lambda: gone.append(True)) as server:
        host, query = address(server)
        (first,) = asyncio.run(drive(f"http://{host}/socket?{query}", f"http://{host}"))
        assert (first["type"], first["epoch"], first["position"]) == ("wish", 1, [0.2, 0.0, 0.1])
        assert pressed == [Control.ADVANCE]
    assert gone == [True]
    assert link.wanted() is None


def test_a_page_that_is_silent_does_not_steer():
    now = [10.0]
    link = BrowserLink(lambda control: None, clock=lambda: now[0])
    link.begin(WISH)
    assert link.wanted() is None
    link.receive({"type": "here"})
    assert link.wanted() is not None
    now[0] += FRESH_S + 0.01
    assert link.wanted() is None


def test_wishes_for_an_earlier_episode_do_not_count(link: BrowserLink):
    link.begin(WISH)
    link.begin(WISH)
    link.receive({"type": "wish", "epoch": 1} | wish_to_json(WISH) | {"position": [9, 9, 9]})
    wish = link.wanted()
    assert wish is not None
    assert wish.position == pytest.approx(WISH.position)


@pytest.mark.parametrize(
    "message",
    [
        [],
        {"type": "jump"},
        {"type": "control", "control": "explode"},
        {"type": "wish", "position": [1, 2]},
        {"type": "wish", "epoch": 1, "position": [1, 2], "tilt": 0, "turn": 0, "opening": 0},
        {"type": "wish", "epoch": 1, "position": [1, 2, "x"], "tilt": 0, "turn": 0, "opening": 0},
        {"type": "wish", "epoch": 1, "position": [1, 2, float("nan")], "tilt": 0, "turn": 0, "opening": 0},
        {"type": "wish", "epoch": 1, "position": [1, 2, 3], "tilt": float("inf"), "turn": 0, "opening": 0},
    ],
)
def test_nonsense_changes_nothing(link: BrowserLink, message: Any):
    link.begin(WISH)
    with pytest.raises(MessageError):
        link.receive(message)
    assert link.wanted() is None


def test_the_arm_holds_still_while_no_page_steers():
    simulation = environment("so100", "push-cube")
    observation = simulation.reset(1)
    link = BrowserLink(lambda control: None)
    view = SceneView(simulation.model, simulation.embodiment, simulation.base_pose, simulation.data)
    driver = ToolDriver(simulation.model, simulation.embodiment, simulation.base_pose)
    agent = BrowserAgent(link, driver, lambda task: view, {"several_tasks": True})
    start = simulation.describe()
    agent.ready(start, observation)
    agent.reset(start, observation)
    held = agent.act(observation).values
    assert held == pytest.approx(observation.state, abs=1e-3)
    moved = wish_to_json(driver.wish) | {"position": [0.15, 0.1, 0.1]}
    link.receive({"type": "wish", "epoch": 2} | moved)
    assert not np.allclose(agent.act(observation).values, held, atol=0.1)
    assert agent.metrics() == {"ticks": 2, "held_ticks": 1}
    agent.show(SessionStatus(Phase.READY, "push-cube", "push it", 0, 1))
    parts, seen = link.changed({})
    assert parts["status"]["phase"] == "ready"
    assert parts["status"]["several_tasks"] is True
    assert link.changed(seen)[0] == {}
    json.dumps({name: parts[name] for name in ("scene", "status", "wish")})
    agent.fail("servo 'elbow_flex' does not answer.")
    parts, _ = link.changed(seen)
    assert parts == {"status": {"phase": "failed", "note": "servo 'elbow_flex' does not answer."}}


def test_the_page_shows_every_shape_where_it_is():
    simulation = environment("so100", "push-cube")
    observation = simulation.reset(1)
    view = SceneView(simulation.model, simulation.embodiment, simulation.base_pose, simulation.data)
    shapes = view.description()["geoms"]
    poses = np.frombuffer(view.poses(observation), dtype="<f4").reshape(-1, 7)
    assert len(shapes) == len(poses)
    (cube,) = [row for row, shape in enumerate(shapes) if shape["size"] == [0.0125] * 3]
    assert observation.environment_state is not None
    assert poses[cube, :3] == pytest.approx(observation.environment_state[:3], abs=1e-6)
    discs = [shape["size"] for shape in shapes if shape["shape"] == "cylinder"]
    assert [0.03, 0.03, 0.0004] in discs


def test_a_view_without_a_simulator_is_of_the_arm_alone():
    simulation = environment("so100", "push-cube")
    observation = simulation.reset(1)
    live = SceneView(simulation.model, simulation.embodiment, simulation.base_pose, simulation.data)
    twin = SceneView(simulation.model, simulation.embodiment, simulation.base_pose)
    assert len(live.description()["geoms"]) == len(twin.description()["geoms"]) + 4, "cube and three discs"
    poses = [np.frombuffer(view.poses(observation), dtype="<f4").reshape(-1, 7) for view in (live, twin)]
    arm = len(poses[1])
    assert poses[1][:, :3] == pytest.approx(poses[0][:arm, :3], abs=1e-5)
