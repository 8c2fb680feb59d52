"""A web server on this machine that behaves well at some addresses and badly at others."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from PIL import Image

from tests.loopback import LoopbackServer, serving


def picture(number: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((48 + number, 40), 60).save(stream, "JPEG")
    return stream.getvalue()


PICTURE = picture()


class Site(BaseHTTPRequestHandler):
    """`/<case>`: the picture, or what the case does to it."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.close_connection = True
        case = self.path.strip("/").partition("/")[0].partition("?")[0]
        getattr(self, f"answer_{case.partition('.')[0]}", self.answer_missing)()

    def _say(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        told = {"Content_Type": "image/jpeg", "Content_Length": str(len(body))} | headers
        for name, value in told.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer_good(self) -> None:
        self._say(body=PICTURE)

    def answer_untold(self) -> None:
        self._say(body=PICTURE, Content_Type="", Content_Length="")

    def answer_chunked(self) -> None:
        self._say(Content_Length="", Transfer_Encoding="chunked")
        for start in range(0, len(PICTURE), 500):
            part = PICTURE[start : start + 500]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def answer_cutchunk(self) -> None:
        self._say(Content_Length="", Transfer_Encoding="chunked")
        self.wfile.write(b"fff\r\nabc")

    def answer_missing(self) -> None:
        self._say(404)

    def answer_short(self) -> None:
        self._say(body=PICTURE, Content_Length=str(len(PICTURE) + 100))

    def answer_promise(self) -> None:
        self._say(body=b"", Content_Length=str(10**12))

    def answer_endless(self) -> None:
        self._say(Content_Length="")
        try:
            for _ in range(10_000):
                self.wfile.write(bytes(10_000))
        except OSError:
            return

    def answer_drip(self) -> None:
        self._say(Content_Length="1000")
        self._drip()

    def answer_dripheader(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self._drip()

    def answer_driptoend(self) -> None:
        self._say(Content_Length="")
        self._drip()

    def _drip(self) -> None:
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            return

    def answer_page(self) -> None:
        self._say(body=b"<html>", Content_Type="text/html; charset=utf-8")

    def answer_packed(self) -> None:
        self._say(body=PICTURE, Content_Encoding="gzip")

    def answer_junk(self) -> None:
        self.wfile.write(b"\x00\x01 no http at all \r\n\r\n")

    def answer_moved(self) -> None:
        self._say(302, Location="/good.jpg")

    def answer_loop(self) -> None:
        self._say(302, Location="/loop")

    def answer_away(self) -> None:
        self._say(302, Location="https://elsewhere.example/a.jpg")

    def answer_inside(self) -> None:
        self._say(302, Location="http://169.254.169.254/latest/meta-data")

    def answer_local(self) -> None:
        self._say(302, Location="file:///etc/passwd")

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serve() -> Iterator[tuple[str, list[str]]]:
    """The site's address without a slash at the end, and the paths it was asked for, which grow."""
    asked: list[str] = []
    handler = type("ServedSite", (Site,), {"asked": asked})
    with serving(LoopbackServer(handler)) as server:
        yield server.endpoint, asked
