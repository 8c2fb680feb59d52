"""A Hub on this machine that gives a folder away as a dataset, by the protocol of `huggingface_hub`."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.loopback import LoopbackServer, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "lab/wheels"
_ABOUT = f"/api/datasets/{NAME}"


class HubStandIn(LoopbackServer):
    """`fetched` lists the files that were asked for in full, `revisions` those that the dataset has."""

    def __init__(self, root: Path, revisions: tuple[str, ...]) -> None:
        super().__init__(_Handler)
        self.root, self.revisions = root, revisions
        self.fetched: list[str] = []


def hub_stand_in(
    root: Path, revisions: tuple[str, ...] = ("main", "v3.0")
) -> AbstractContextManager[HubStandIn]:
    return serving(HubStandIn(root, revisions))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStandIn  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        revision = path.removeprefix(f"{_ABOUT}/revision/")
        if path.startswith(f"/datasets/{NAME}/resolve/{COMMIT}/"):
            self._file(path.removeprefix(f"/datasets/{NAME}/resolve/{COMMIT}/"))
        elif path == f"{_ABOUT}/tree/{COMMIT}":
            self._answer(200, json.dumps(self._files()).encode())
        elif path == _ABOUT or revision in (*self.server.revisions, COMMIT):
            self._answer(200, json.dumps({"id": NAME, "sha": COMMIT, "tags": [], "private": False}).encode())
        else:
            missing = "RevisionNotFound" if path.startswith(_ABOUT) else "RepoNotFound"
            self._answer(404, b"{}", {"X-Error-Code": missing})

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None: ...

    def _files(self) -> list[dict]:
        root = self.server.root
        return [
            {
                "type": "file",
                "path": path.relative_to(root).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in sorted(root.rglob("*"))
            if path.is_file()
        ]

    def _file(self, name: str) -> None:
        path = self.server.root / name
        if not path.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        if self.command == "GET":
            self.server.fetched.append(name)
        digest = hashlib.sha256(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
