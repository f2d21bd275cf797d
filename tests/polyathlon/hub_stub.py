"""A stub of the HuggingFace hub on loopback: it makes repositories, takes commits and gives files out."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 39 + "1"


class Stub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repositories: {name: {file: content}}.
        seen: methods and paths of the requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.seen: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _say(self, content: Any, code: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        self.server.seen.append(f"POST {self.path}")
        body, path = self._body(), self.path.partition("?")[0]
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'someone'}/{given['name'].rpartition('/')[2]}"
            self.server.repositories.setdefault(name, {})
            return self._say({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return self._say(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.repositories[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.server.address}/{name}/commit/{COMMIT}"
            return self._say({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        return self._say({"errors": [], "warnings": []})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        name, mark, rest = self.path.partition("?")[0].lstrip("/").partition("/resolve/")
        files = self.server.repositories.get(name)
        if mark and files is not None:
            content = files.get(rest.partition("/")[2])
            if content is not None:
                tag = hashlib.sha256(content).hexdigest()
                return self._say(content, ETag=f'"{tag}"', **{"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})
            return self._say(
                {"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            )
        if self.path.startswith("/api/models/"):
            known = self.path.removeprefix("/api/models/").partition("/revision")[0] in self.server.repositories
            if known:
                return self._say({"id": name, "sha": COMMIT, "siblings": [], "private": False})
        return self._say({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})


@contextmanager
def running() -> Iterator[Stub]:
    """Run the stub while the context lasts."""
    stub = Stub()
    thread = threading.Thread(target=stub.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.shutdown()
        stub.server_close()
