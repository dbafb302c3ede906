"""Read items in threads ahead of whoever uses them, in order and within a bound of memory.

Pillow decodes without holding Python's lock, so images can be decoded while a model works on an earlier one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

AHEAD = 4  # items
WORKERS = 2  # threads


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Value], ahead: int = AHEAD, workers: int = WORKERS
) -> Generator[tuple[Item, Callable[[], Value]], None, None]:
    """Yield each item, in order, with a function that gives ``read(item)`` or raises what that raised.

    While one item is in use, at most ``ahead`` further ones are read or held; nothing is read before the first is asked
    for. An error belongs to its item: those after it still come. The threads end with the iterator; where a loop may
    be left early, ``contextlib.closing`` ends them there and then. ::

        with closing(read_ahead(files, read_image)) as images:
            for file, image in images:
                try:
                    inspect(image())
                except UnreadableImageError as error:
                    ...
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead")
    pending: deque[tuple[Item, Callable[[], Value]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(read, item).result))
            if len(pending) > ahead:
                yield pending.popleft()  # without a name here that would keep it alive
        while pending:
            yield pending.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
