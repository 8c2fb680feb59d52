"""Serves the viewer's page to this machine, an episode at a time.

Only who knows the token in the page's address gets anything. Addresses carry numbers of cameras, episodes and frames,
never paths; which file is meant is for the source to say, which refuses one outside the dataset.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from blm.pages.viewer.content import (
    PAGE_FILES,
    dataset_script,
    episode_script,
    page_file,
    problem_script,
    stream_entry,
)
from blm.pages.viewer.source import PICTURE_TYPES, PictureStream, VideoStream, ViewSource, picture_ending
from blm.schemas.errors import BlmError, UsageError

LOOPBACK = "127.0.0.1"
_SCRIPT = "text/javascript; charset=utf-8"
_EPISODE = re.compile(r"episodes/(\d{1,9})\.js", re.ASCII)
_VIDEO = re.compile(r"videos/(\d{1,3})/(\d{1,9})\.mp4", re.ASCII)
_PICTURE = re.compile(r"pictures/(\d{1,3})/(\d{1,9})/(\d{1,9})\.[a-z]{3,4}", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_PIECE = 1 << 18

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "media-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ViewerServer(ThreadingHTTPServer):
    """The page of a dataset or build on a port of the loopback interface; `address` is what to open in a browser."""

    daemon_threads = True

    def __init__(self, source: ViewSource, port: int = 0, first: int | None = None) -> None:
        """Bind to `port` (0: any free one); `first` is the episode shown first.

        Raises:
            UsageError: the port is taken, or there is no such episode.
        """
        self.source = source
        self.token = secrets.token_urlsafe(24)
        if first is not None:
            source.check(first)
        self._first = first
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used: {error.strerror}.", "Leave --port away to take a free one."
            ) from error

    @property
    def address(self) -> str:
        fragment = f"#{self._first}" if self._first is not None else ""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/{fragment}"

    @property
    def hosts(self) -> set[str]:
        """What browsers may call this server; anything else is another site's name pointed here."""
        return {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    def episode_script(self, episode: int) -> bytes:
        streams = enumerate(self.source.streams(episode))
        entries = [stream_entry(episode, number, stream) for number, stream in streams]
        return episode_script(self.source, episode, entries)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server_version = "blm"
    sys_version = ""
    server: ViewerServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            self._answer(name or "index.html")
        except BlmError:
            self._refuse(HTTPStatus.NOT_FOUND)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: requests carry the token."""

    def _answer(self, name: str) -> None:
        source = self.server.source
        if name in PAGE_FILES:
            self._send(PAGE_FILES[name], page_file(name))
        elif name == "dataset.js":
            self._send(_SCRIPT, dataset_script(source))
        elif found := _EPISODE.fullmatch(name):
            self._send(_SCRIPT, self._episode(int(found[1])))
        elif (found := _VIDEO.fullmatch(name)) and (
            stream := self._stream(VideoStream, int(found[1]), int(found[2]))
        ):
            self._send_video(stream.locate())
        elif (found := _PICTURE.fullmatch(name)) and (
            stream := self._stream(PictureStream, int(found[1]), int(found[2]))
        ):
            content = stream.picture(int(found[3]))
            self._send(PICTURE_TYPES[picture_ending(content, name)], content)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _stream[S](self, kind: type[S], camera: int, episode: int) -> S | None:
        """A camera of an episode, if it is of that kind."""
        streams = self.server.source.streams(episode)
        stream = streams[camera] if camera < len(streams) else None
        return stream if isinstance(stream, kind) else None

    def _episode(self, episode: int) -> bytes:
        """An episode that cannot be read is told on the page; one that is not there is not found."""
        self.server.source.check(episode)
        try:
            return self.server.episode_script(episode)
        except BlmError as error:
            return problem_script(episode, str(error))

    def _send_video(self, path: Path) -> None:
        size = path.stat().st_size
        wanted = _byte_range(self.headers.get("Range"), size)
        if wanted is None:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
            return
        begin, end = wanted
        whole = "Range" not in self.headers
        headers = {"Accept-Ranges": "bytes", "Content-Type": "video/mp4", "Content-Length": str(end - begin)}
        if not whole:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        self._head(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT, headers)
        if self.command == "HEAD":
            return
        with path.open("rb") as stream:
            stream.seek(begin)
            missing = end - begin
            for piece in iter(partial(stream.read, _PIECE), b""):
                self.wfile.write(piece[:missing])
                missing -= len(piece)
                if missing <= 0:
                    break

    def _send(self, media_type: str, content: bytes) -> None:
        self._head(HTTPStatus.OK, {"Content-Type": media_type, "Content-Length": str(len(content))})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, more: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": "0", **(more or {})})

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | headers).items():
            self.send_header(name, value)
        self.end_headers()


def _byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Half-open range of bytes that a Range header asks for; the whole without one, None if it cannot be met."""
    if header is None:
        return 0, size
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        last = min(int(found[2]), size)
        return (size - last, size) if last else None
    begin = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    return (begin, end) if begin < end else None


def serve(source: ViewSource, port: int, first: int | None, started: Callable[[str], None]) -> None:
    """Serve until interrupted (Ctrl-C); `started` is told the address.

    Raises:
        UsageError: as `ViewerServer`.
    """
    with ViewerServer(source, port, first) as server:
        started(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
