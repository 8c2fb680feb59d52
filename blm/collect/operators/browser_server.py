"""Serves the operator's page: one address with a secret in it, for this machine unless asked otherwise.

The page steers a robot, so who may open it is checked three times: the token in the address (for page and socket),
the Host header (a foreign name that resolves to this machine is refused), and the Origin of the socket.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import secrets
import socket
import threading
from collections.abc import Callable
from importlib import resources
from typing import Any, Self

from blm.collect.operators.browser_link import BrowserLink, MessageError
from blm.schemas.errors import HardwareError, MissingExtraError, UsageError

_SEND_EVERY_S = 1 / 30
_LARGEST_MESSAGE = 4096
_JPEG_QUALITY = 80
_POSES, _IMAGE = 1, 2
_REPLACED = 4001
"""Close code: another page has taken over."""


class BrowserServer:
    """The page's server in a thread of its own, from `start` to `close`; or use it as a context.

    Attributes:
        url: what the person opens.
        warning: a sentence for who bound the server to more than this machine; empty otherwise.
    """

    def __init__(
        self,
        link: BrowserLink,
        *,
        bind: str = "127.0.0.1",
        port: int = 0,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        """`on_gone` is called when the page that was steering has gone away.

        Raises MissingExtraError without aiohttp, UsageError for an address that is none."""
        try:
            import aiohttp.web  # noqa: F401
        except ImportError:
            raise MissingExtraError("aiohttp", "teleop") from None
        try:
            address = ipaddress.ip_address("127.0.0.1" if bind == "localhost" else bind)
        except ValueError:
            raise UsageError(f"--bind '{bind}' is no IP address.", "Example: --bind 127.0.0.1") from None
        self._link = link
        self._on_gone = on_gone
        self._bind = str(address)
        self._port = port
        self._token = secrets.token_urlsafe(16)
        self._nonce = secrets.token_urlsafe(8)
        self._page = _page(self._nonce)
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="browser page", daemon=True)
        self._driver: Any = None
        self.url = ""
        self.warning = ""
        if not address.is_loopback:
            self.warning = (
                f"The page is open to the network at {bind}: whoever has its address can move the robot, and nothing "
                "is encrypted."
            )

    def start(self) -> Self:
        """Raises HardwareError if the address or port cannot be used."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise HardwareError(
                f"no page can be served at {self._bind}:{self._port}: {self._failure.strerror}.",
                "Choose another --web-port, or 0 for any that is free.",
            )
        return self

    def close(self) -> None:
        if self._loop is not None and self._ended is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(timeout=5.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        from aiohttp import web

        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application()
        application.router.add_get("/", self._answer_page)
        application.router.add_get("/socket", self._answer_socket)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._bind, self._port)
            await site.start()
            self._port = runner.addresses[0][1]
            self.url = f"http://{self._host()}/?token={self._token}"
        except OSError as error:
            self._failure = error
        self._started.set()
        if self._failure is None:
            await self._ended.wait()
        await runner.cleanup()

    def _host(self) -> str:
        """Host and port as a person on this machine opens them."""
        address = ipaddress.ip_address(self._bind)
        shown = socket.gethostname() if address.is_unspecified else self._bind
        return f"[{shown}]:{self._port}" if ":" in shown else f"{shown}:{self._port}"

    def _refusal(self, request: Any, *, origin: bool) -> str:
        """Why a request is refused; empty if it is not."""
        if not self._host_allowed(request.headers.get("Host", "")):
            return "unknown host"
        if origin and request.headers.get("Origin", "") != f"http://{request.headers.get('Host', '')}":
            return "foreign origin"
        given = request.query.get("token", "").encode()
        return "" if hmac.compare_digest(given, self._token.encode()) else "wrong or missing token"

    def _host_allowed(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if port != str(self._port):
            return False
        name = name.strip("[]").lower()
        if ipaddress.ip_address(self._bind).is_loopback:
            return name in ("localhost", self._bind)
        if name == socket.gethostname().lower():
            return True
        try:
            # A name can be made to resolve to this machine by anybody; an address cannot.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def _answer_page(self, request: Any) -> Any:
        from aiohttp import web

        if refusal := self._refusal(request, origin=False):
            return web.Response(status=403, text=f"{refusal}: open the address that blm printed.\n")
        policy = (
            f"default-src 'none'; script-src 'nonce-{self._nonce}'; style-src 'nonce-{self._nonce}'; "
            "connect-src 'self'; img-src blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(text=self._page, content_type="text/html", headers=headers)

    async def _answer_socket(self, request: Any) -> Any:
        from aiohttp import web

        if refusal := self._refusal(request, origin=True):
            return web.Response(status=403, text=f"{refusal}\n")
        channel = web.WebSocketResponse(max_msg_size=_LARGEST_MESSAGE, heartbeat=5.0)
        await channel.prepare(request)
        before, self._driver = self._driver, channel
        if before is not None:
            await before.close(code=_REPLACED, message=b"another page has taken over")
        sender = asyncio.create_task(self._send(channel))
        try:
            async for message in channel:
                self._receive(message)
        finally:
            sender.cancel()
            if self._driver is channel:
                self._driver = None
                self._link.gone()
                if self._on_gone is not None:
                    self._on_gone()
        return channel

    def _receive(self, message: Any) -> None:
        try:
            self._link.receive(json.loads(message.data))
        except (MessageError, ValueError, TypeError):
            return  # a page of another version, or not ours: nothing it says counts

    async def _send(self, channel: Any) -> None:
        """Send what changed, at most 30 times a second, and only as fast as the page takes it."""
        seen: dict[str, int] = {}
        while not channel.closed:
            parts, seen = self._link.changed(seen)
            try:
                for name in ("scene", "wish", "status"):
                    if name in parts:
                        await channel.send_str(json.dumps({"type": name} | parts[name]))
                if "poses" in parts:
                    await channel.send_str(json.dumps({"type": "tool", "pose": parts["tool"]}))
                    await channel.send_bytes(bytes([_POSES, 0, 0, 0]) + parts["poses"])
                if "images" in parts:
                    await self._send_images(channel, parts["images"])
            except (ConnectionError, RuntimeError):
                return
            await asyncio.sleep(_SEND_EVERY_S)

    async def _send_images(self, channel: Any, images: dict[str, Any]) -> None:
        for name, image in images.items():
            picture = await asyncio.to_thread(_jpeg, image)
            label = name.encode()
            await channel.send_bytes(bytes([_IMAGE, len(label)]) + label + picture)


def _jpeg(image: Any) -> bytes:
    import numpy as np
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=_JPEG_QUALITY, colorspace="RGB")


def _page(nonce: str) -> str:
    """The whole page as one document: nothing else needs to be served, and so to be protected."""
    folder = resources.files("blm.collect.operators") / "page"
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.css", "view.js", "page.js")}
    page = (folder / "page.html").read_text(encoding="utf-8").replace("{{nonce}}", nonce)
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text)
    return page
