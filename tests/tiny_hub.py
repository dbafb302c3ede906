"""A hub on loopback: as much of the Hugging Face hub's protocol as a pull needs, and the ways in which it can fail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Files = dict[str, bytes]


class TinyHub:
    """One repository: its commits, oldest first, and what is wrong with the line to it."""

    def __init__(self, repository: str, *commits: Files) -> None:
        self.repository = repository
        self.commits = {hashlib.sha1(b"%d" % i).hexdigest(): files for i, files in enumerate(commits)}
        self.url = ""
        self.asked: list[str] = []  # paths, in order
        self.cut: set[str] = set()  # files that end early
        self.altered: set[str] = set()  # files of which one bit is wrong

    @property
    def newest(self) -> str:
        """The commit that main is at."""
        return list(self.commits)[-1]

    def info(self, commit: str) -> bytes:
        """The answer of api/models: the commit and its files."""
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134},
            }
            for name, data in self.commits[commit].items()
        ]
        return json.dumps({"id": self.repository, "sha": commit, "siblings": siblings}).encode()

    def tree(self, commit: str) -> bytes:
        """The answer of tree: the files of a commit."""
        oids = {name: hashlib.sha1(data).hexdigest() for name, data in self.commits[commit].items()}
        return json.dumps(
            [{"type": "file", "path": n, "size": len(self.commits[commit][n]), "oid": oid} for n, oid in oids.items()]
        ).encode()

    def content(self, commit: str, name: str) -> bytes:
        """What is sent of a file."""
        data = self.commits[commit][name]
        if name in self.altered:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return data[:-7] if name in self.cut else data


@contextmanager
def serving(hub: TinyHub) -> Iterator[TinyHub]:
    """The hub, answering at ``hub.url``."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            commit, name = hub.newest, ""
            if path.startswith(f"/api/models/{hub.repository}/revision/"):
                commit = path.rpartition("/")[2]
            elif path.startswith(f"/api/models/{hub.repository}/tree/"):
                return self.answer(200, hub.tree(path.rpartition("/")[2]), {"Content-Type": "application/json"})
            elif path.startswith(f"/{hub.repository}/resolve/"):
                commit, name = path.split("/")[-2:]
            elif path != f"/api/models/{hub.repository}":
                return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            commit = hub.newest if commit == "main" else commit
            if commit not in hub.commits:
                return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            if not name:
                return self.answer(200, hub.info(commit), {"Content-Type": "application/json"})
            whole = hub.commits[commit][name]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(whole).hexdigest()}"'}
            # HEAD announces the whole file, whatever comes of it
            return self.answer(200, whole if self.command == "HEAD" else hub.content(commit, name), headers)

        def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
