"""A chat server on loopback that answers as it is told to: well, wrongly, slowly or not at all."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Reply = Callable[["Handler", dict[str, Any]], None]

GOOD = {
    "visual_evidence": "The region is darker than its surroundings.",
    "comparison": "The region looks like a scratch.",
    "region_id": "R1",
    "location": "upper left",
    "brightness": "darker",
    "shape": "compact",
    "size": "small",
    "defect_type": "scratch",
    "severity": "undetermined",
}


@dataclass
class ChatServer:
    """``replies`` are used up in order, the last one stays; ``requests`` are the bodies of what was asked."""

    replies: list[Reply]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0  # the most requests that were open at the same time
    open: int = 0
    lock: Lock = field(default_factory=Lock)


class Handler(BaseHTTPRequestHandler):
    """Hands a request to the next reply."""

    chat: ChatServer

    def do_GET(self) -> None:
        self.chat.paths.append(self.path)
        self.send(200, b'{"data": []}')

    def do_POST(self) -> None:
        chat = self.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with chat.lock:
            chat.paths.append(self.path)
            chat.requests.append(body)
            chat.headers.append(dict(self.headers))
            chat.open += 1
            chat.at_once = max(chat.at_once, chat.open)
            reply = chat.replies.pop(0) if len(chat.replies) > 1 else chat.replies[0]
        try:
            with suppress(OSError):  # whoever asked has gone
                reply(self, body)
        finally:
            with chat.lock:
                chat.open -= 1

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def completion(content: object, finished: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finished}]}).encode()


def answers(content: object = None, finished: str = "stop", **changes: str) -> Reply:
    """A 200 with an answer: ``content``, or a good one with ``changes``, about the region that was asked about."""

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        said = content
        if said is None:
            text = body["messages"][-1]["content"][-1]["text"]
            region = text.partition("region_id, which is ")[2].partition(";")[0]
            said = json.dumps({**GOOD, "region_id": region, **changes})
        handler.send(200, completion(said, finished))

    return reply


def raw(status: int, data: bytes, **headers: str) -> Reply:
    """Any response."""
    return lambda handler, _: handler.send(status, data, **headers)


def failing(status: int, message: str = "no", **headers: str) -> Reply:
    return raw(status, json.dumps({"error": {"message": message}}).encode(), **headers)


def hanging_up(handler: Handler, _: dict[str, Any]) -> None:
    """No answer, but a closed connection."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_off(handler: Handler, _: dict[str, Any]) -> None:
    """Less than was announced."""
    handler.send(200, completion(json.dumps(GOOD))[:-20], Content_Length="5000")
    handler.close_connection = True


def dripping(handler: Handler, _: dict[str, Any]) -> None:
    """A byte now and then, so that no timeout between two of them is ever reached."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@contextmanager
def serving(*replies: Reply) -> Iterator[ChatServer]:
    """The server, answering at ``server.url``."""
    chat = ChatServer(list(replies))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"chat": chat}))
    server.daemon_threads, server.block_on_close = True, False  # who still drips is not waited for
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
