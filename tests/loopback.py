"""A listener on this machine that nothing should ever call: it counts who does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Listener:
    """``calls`` holds the address of everyone who connected to ``port`` so far."""

    port: int
    calls: list[object] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Listener]:
    """Listen until the end of the block; a call of our own then proves that one would have been counted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(server.getsockname()[1])
        heard = threading.Event()

        def count() -> None:
            with suppress(OSError):
                while not heard.is_set():
                    connection, address = server.accept()
                    connection.close()
                    listener.calls.append(address)
                    if address == own:
                        heard.set()

        own: object = None
        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        yield listener
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            own = probe.getsockname()
            probe.connect(("127.0.0.1", listener.port))
            assert heard.wait(10), "the listener does not hear"
        thread.join(10)
        listener.calls.remove(own)
