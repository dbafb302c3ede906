"""Reading ahead keeps the order, the bound and every error in its place, and leaves no thread behind."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explainvad.errors import UnreadableImageError
from explainvad.lot import read_image, scan
from explainvad.read_ahead import read_ahead


class Value:
    """Something that can be seen to die."""

    def __init__(self, number: int) -> None:
        self.number = number


@pytest.fixture(autouse=True)
def _no_threads_are_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within 5 seconds."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("ahead", [0, 1, 4, 50])
def test_items_come_in_order_with_their_values(ahead: int, workers: int) -> None:
    def read(number: int) -> int:
        time.sleep(0.002 * (number % 3))  # later ones are ready sooner
        return number**2

    found = [(item, value()) for item, value in read_ahead(range(20), read, ahead, workers)]
    assert found == [(i, i**2) for i in range(20)]


def test_there_may_be_nothing_to_read() -> None:
    assert list(read_ahead([], str)) == []


@pytest.mark.parametrize("ahead", [0, 3])
def test_no_more_is_read_or_held_than_the_bound(ahead: int) -> None:
    taken: list[int] = []
    alive: weakref.WeakSet[Value] = weakref.WeakSet()

    def items() -> Iterator[int]:
        for number in range(12):
            taken.append(number)
            yield number

    def read(number: int) -> Value:
        value = Value(number)
        alive.add(value)
        return value

    images = read_ahead(items(), read, ahead)
    assert not taken
    for i, (_, value) in enumerate(images):
        assert value().number == i
        bound = min(12, i + 1 + ahead)
        assert taken == list(range(bound))
        assert soon(lambda i=i, bound=bound: {v.number for v in alive} == set(range(i, bound)))


def test_it_reads_while_the_consumer_works() -> None:
    """Each read waits for the one before to be in use: without reading ahead this would never end."""
    events = [threading.Event() for _ in range(6)]

    def read(number: int) -> int:
        events[number].set()
        return number

    for number, value in read_ahead(range(6), read, ahead=1):
        assert value() == number
        assert number == 5 or events[number + 1].wait(timeout=5)


def test_several_items_are_read_at_once() -> None:
    together = threading.Barrier(3, timeout=5)
    values = read_ahead(range(6), lambda _: together.wait(), ahead=4, workers=3)
    assert sorted(value() for _, value in values) == [0, 0, 1, 1, 2, 2]


def test_an_error_belongs_to_its_item() -> None:
    def read(number: int) -> int:
        if number % 3 == 1:
            raise UnreadableImageError(f"no {number}")
        return number

    found: list[int | str] = []
    for _, value in read_ahead(range(8), read):
        try:
            found.append(value())
        except UnreadableImageError as error:
            found.append(str(error))
    assert found == [0, "no 1", 2, 3, "no 4", 5, 6, "no 7"]


def test_errors_that_are_not_caught_end_it() -> None:
    def read(number: int) -> int:
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError), closing(read_ahead(range(100), read)) as values:
        for _, value in values:
            value()


def test_an_error_of_the_items_themselves_is_theirs() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("the folder went away")

    with pytest.raises(OSError, match="went away"):
        list(read_ahead(items(), str))


@pytest.mark.parametrize("how", ["closing", "del"])
def test_leaving_early_cancels_what_has_not_begun(how: str) -> None:
    started: list[int] = []

    def read(number: int) -> int:
        started.append(number)
        time.sleep(0.02)
        return number

    values = read_ahead(range(1000), read, ahead=100, workers=2)
    number, value = next(values)
    assert (number, value()) == (0, 0)
    if how == "closing":
        values.close()
    else:
        del values
        gc.collect()
    begun = len(started)
    assert begun < 20
    time.sleep(0.1)
    assert len(started) == begun


def test_never_begun_it_starts_no_thread() -> None:
    values = read_ahead(range(10), str)
    values.close()
    assert list(values) == []


def test_a_lot_is_read_file_by_file(tmp_path: Path) -> None:
    for i in range(5):
        pixels = np.full((32, 32, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"\x89PNG, but no more of it")
    shown: list[int | None] = []
    for file, image in read_ahead(scan(tmp_path), read_image):
        try:
            shown.append(int(image().pixels[0, 0, 0]))
            assert image().file == file.file
        except UnreadableImageError:
            shown.append(None)
    assert shown == [0, 40, None, 120, 160]
