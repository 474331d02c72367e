"""A server on 127.0.0.1 that answers for files as Hugging Face does: a redirect that tells size and hash, ranges."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

COMMIT = "2439f60ef33a0d46d85da5001d52aeda5b00ce9f"


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Hub:
    """What is served, how, and what was asked for.

    Attributes:
        files: content by REPOSITORY/PATH.
        claimed: content that the redirect's hash and size are of, where it is another one than is sent.
        cuts: numbers of bytes after which the next answers end, one taken for each; 0 sends no answer at all.
        requests: in their order.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    claimed: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def sent(self, name: str) -> list[str | None]:
        """The ranges of a file that were asked for; None: all of it."""
        return [
            request.headers.get("range")
            for request in self.requests
            if request.method == "GET" and request.path.startswith("/cdn/") and request.path.endswith(f"/{name}")
        ]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_) -> None:
        pass

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, self.path, headers))
        if self.path.startswith("/cdn/"):
            self._send(self.hub.files[self.path.removeprefix("/cdn/")])
            return
        repository, found, path = self.path[1:].partition("/resolve/main/")
        name = f"{repository}/{path}"
        if not found or name not in self.hub.files:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Error-Message", "Entry not found")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.hub.claimed.get(name, self.hub.files[name])
        self.send_response(302)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn/{name}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes) -> None:
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        if cut != 0:
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:][:cut])
        self.close_connection = True
