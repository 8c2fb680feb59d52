"""A Hub on this machine: enough of its protocol for `huggingface_hub` to make a repository, commit to it and tag it."""

from __future__ import annotations

import base64
import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler

from tests.loopback import LoopbackServer, serving


class FakeHub(LoopbackServer):
    """What was asked of it: `created`, `files` by path, `tags`, and the `tokens` it was shown."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.created: dict | None = None
        self.files: dict[str, bytes] = {}
        self.commits = 0
        self.tags: list[str] = []
        self.tokens: set[str | None] = set()
        self.refuses = False


def fake_hub() -> AbstractContextManager[FakeHub]:
    return serving(FakeHub())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self._body()
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses:
            self._answer(403, {"error": "this token may not write"})
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer(
                200, {"url": f"{self.server.endpoint}/datasets/{self._name()}", "name": self._name()}
            )
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._answer(
                200,
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                    ]
                },
            )
        elif "/commit/" in self.path:
            self._commit(body)
        elif "/tag/" in self.path:
            self.server.tags.append(json.loads(body)["tag"])
            self._answer(200, {})
        else:
            self._answer(404, {"error": f"not part of this Hub: {self.path}"})

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                for path, content in self.server.files.items()
            ]
            self._answer(200, listed)
        elif "/revision/" in self.path or self.path.startswith("/api/datasets/"):
            siblings = [{"rfilename": path} for path in self.server.files]
            self._answer(200, {"id": self._name(), "sha": "0" * 40, "siblings": siblings})
        else:
            self._answer(404, {"error": f"not part of this Hub: {self.path}"})

    def do_DELETE(self) -> None:
        tag = self.path.rsplit("/", 1)[-1]
        if tag in self.server.tags:
            self.server.tags.remove(tag)
            self._answer(200, {})
        else:
            self._answer(404, {"error": "no such tag"}, {"X-Error-Code": "RevisionNotFound"})

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _name(self) -> str:
        created = self.server.created or {}
        return f"{created.get('organization')}/{created.get('name')}"

    def _commit(self, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                self.server.files.pop(entry["value"]["path"])
        self.server.commits += 1
        address = f"{self.server.endpoint}/datasets/{self._name()}/commit/{'0' * 40}"
        self._answer(200, {"commitUrl": address, "commitOid": "0" * 40})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
