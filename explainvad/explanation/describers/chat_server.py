"""A server that speaks the OpenAI chat protocol, treated as what it is: another machine, slow, full or hostile.

The client is the standard library's, because what counts is what it does not do: it follows no redirect, unpacks
nothing, keeps no connection, reads no more than it was told to, and ends at its deadline whatever the server sends.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Timer
from typing import Any
from urllib.parse import urlsplit

from explainvad.explanation.describers.asking import NoAnswerError, one_line

RESPONSE_LIMIT = 1 << 20  # bytes
LONGEST_WAIT = 30.0  # seconds between two attempts, whatever the server asks for
FIRST_WAIT = 0.5  # seconds; doubled from attempt to attempt
MESSAGE_LENGTH = 100  # characters of the server's own words in a reason


class _BusyError(Exception):
    """The server may answer later: 429, 5xx or a broken connection. ``wait`` is what it asks for, seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, slots=True, eq=False)
class ChatServer:
    """Where it is, the secret that opens it, and how often a busy one is asked again."""

    base_url: str
    key: str | None = field(repr=False)
    retries: int

    @property
    def host(self) -> str:
        """Host and port, for the report."""
        return urlsplit(self.base_url).netloc

    def reach(self, seconds: float) -> str | None:
        """Why nothing answers there; None where a server does, whatever it says."""
        try:
            self._exchange("GET", "/models", None, time.monotonic() + seconds)
        except _BusyError as error:
            return str(error) if error.__cause__ else None  # a server that is only busy can be reached
        except NoAnswerError as error:
            return str(error) if error.__cause__ else None
        return None

    def complete(self, request: Mapping[str, Any], seconds: float) -> Any:
        """POST to chat/completions; the body of the answer as JSON. Raises NoAnswerError."""
        deadline = time.monotonic() + seconds
        body = json.dumps(request).encode()
        for attempt in range(self.retries + 1):
            try:
                return self._exchange("POST", "/chat/completions", body, deadline)
            except _BusyError as error:
                wait = max(min(error.wait, LONGEST_WAIT), FIRST_WAIT * 2**attempt)
                if attempt == self.retries or time.monotonic() + wait >= deadline:
                    tries = f" ({attempt + 1} attempts)" if attempt else ""
                    raise NoAnswerError(f"{error}{tries}") from error
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _exchange(self, method: str, path: str, body: bytes | None, deadline: float) -> Any:
        """One request and its answer, over a connection of its own that is cut at the deadline."""
        url = urlsplit(self.base_url)
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "explainvad"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        sock, cut = None, None
        try:
            sock = self._connected(deadline)
            # A timeout of the socket alone begins anew with every byte
            cut = Timer(_left(deadline), _cut, [sock])
            cut.daemon = True
            cut.start()
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection = http.client.HTTPConnection(url.netloc)  # which names the host; the socket is ours
            connection.sock = sock
            connection.request(method, f"{url.path.rstrip('/')}{path}", body, headers)
            response = connection.getresponse()
            content = response.read(RESPONSE_LIMIT + 1)
            whole = len(content) <= RESPONSE_LIMIT and not response.length
            if time.monotonic() >= deadline:
                raise TimeoutError
            return self._content(response, content, whole)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline - 0.01 or isinstance(error, TimeoutError):
                raise NoAnswerError("no answer in time") from error
            raise _BusyError(f"connection failed: {_words(error)}") from error
        finally:
            if cut is not None:
                cut.cancel()
            if sock is not None:
                sock.close()

    def _connected(self, deadline: float) -> socket.socket:
        """A connection to the server; with https, before its handshake."""
        url = urlsplit(self.base_url)
        secure = url.scheme == "https"
        addresses = socket.getaddrinfo(url.hostname, url.port or (443 if secure else 80), type=socket.SOCK_STREAM)
        sock = _first_connected(addresses, deadline)
        sock.settimeout(_left(deadline))
        if not secure:
            return sock
        context = ssl.create_default_context()
        return context.wrap_socket(sock, server_hostname=url.hostname, do_handshake_on_connect=False)

    def _content(self, response: http.client.HTTPResponse, content: bytes, whole: bool) -> Any:
        """The JSON of a good answer; else the reason, with the server's own words where it gives any."""
        status = response.status
        if 300 <= status < 400:
            raise NoAnswerError(f"the server answered {status}, a redirect, which is not followed")
        if status != 200:
            reason = f"the server answered {status}{self._server_words(content)}"
            if status == 429 or status >= 500:
                raise _BusyError(reason, _seconds(response.getheader("Retry-After")))
            raise NoAnswerError(reason)
        if len(content) > RESPONSE_LIMIT:
            raise NoAnswerError(f"the server's answer has more than {RESPONSE_LIMIT:,} bytes")
        if not whole:
            raise _BusyError("the server's answer was cut off")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise NoAnswerError("the server's answer is not JSON") from None

    def _server_words(self, content: bytes) -> str:
        try:
            text = json.loads(content)
        except (ValueError, RecursionError):
            return ""
        for name in ("error", "message", "detail"):  # OpenAI's {"error": {"message": ...}}, and what others send
            text = text.get(name, text) if isinstance(text, dict) else text
        if not isinstance(text, str):
            return ""
        if self.key:
            text = text.replace(self.key, "…")  # some servers repeat it
        return f": {one_line(text, MESSAGE_LENGTH)}"


def _first_connected(addresses: Sequence[tuple[Any, ...]], deadline: float) -> socket.socket:
    """A connection to the first of the ``addresses`` (as of socket.getaddrinfo) that answers. Raises OSError.

    Each gets an equal share of the time that is left: socket.create_connection would give all of it to every one.
    """
    failure = OSError("the server has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(_left(deadline) / (len(addresses) - tried))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _left(deadline: float) -> float:
    """Seconds to the deadline, at least a few hundredths, so that what is due now fails as late and not as wrong."""
    return max(0.05, deadline - time.monotonic())


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):  # it may be closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # an SSLSocket's own would wait for its peer's goodbye


def _seconds(text: str | None) -> float:
    """Retry-After in seconds; dates and nonsense mean no wish."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(str(text), MESSAGE_LENGTH)
