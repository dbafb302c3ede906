"""A listener on this machine that nothing should ever call: it notes what whoever does has to say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Listener:
    """``calls`` holds the first words of everyone who connected to ``port`` so far; none are empty bytes."""

    port: int
    calls: list[bytes] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Listener]:
    """Listen until the end of the block; a call of our own then proves that one would have been noted."""
    own = b"the listener hears"
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(server.getsockname()[1])

        def note() -> None:
            while own not in listener.calls:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(2)
                    words = b""
                    with suppress(OSError):
                        words = connection.recv(4096)
                    listener.calls.append(words)

        thread = threading.Thread(target=note, daemon=True)
        thread.start()
        yield listener
        with socket.create_connection(("127.0.0.1", listener.port)) as probe:
            probe.sendall(own)
        thread.join(20)
        assert not thread.is_alive(), "the listener does not hear"
        listener.calls.remove(own)
