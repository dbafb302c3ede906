"""A PDF file written piece by piece: nothing is kept but the place of each object.

Objects without a stream are packed into object streams (ISO 32000-1, 7.5.7) and found through a cross-reference stream
(7.5.8), which a file of a hundred thousand structure elements is a tenth as large by.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import BinaryIO

_PACKED = 200  # objects in an object stream
_FREE, _PLAIN, _IN_STREAM = 0, 1, 2  # types of entries in the cross-reference stream
_WIDTHS = (1, 5, 2)  # bytes of an entry's fields


class PdfFile:
    """Writes one PDF to ``file``. The same objects in the same order give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at, self._digest = file, 0, hashlib.sha256()
        self._entries = [_entry(_FREE, 0, 65535)]
        self._waiting: list[tuple[int, bytes]] = []
        self._write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")

    def number(self) -> int:
        """The number of an object that will be put later."""
        self._entries.append(b"")
        return len(self._entries) - 1

    def put(self, number: int, text: bytes) -> None:
        """Write an object that has no stream."""
        self._waiting.append((number, text))
        if len(self._waiting) == _PACKED:
            self._pack()

    def put_stream(self, number: int, entries: bytes, data: bytes) -> None:
        """Write a stream. ``entries`` are those of its dictionary, all but its length."""
        self._entries[number] = _entry(_PLAIN, self._at, 0)
        self._write(b"%d 0 obj\n<< %s /Length %d >>\nstream\n" % (number, entries, len(data)), data)
        self._write(b"\nendstream\nendobj\n")

    def close(self, catalog: int, information: bytes) -> None:
        """Write what is left and the cross-reference stream. ``information``: reference of that dictionary, or none."""
        self._pack()
        number = self.number()
        start = self._at
        self._entries[number] = _entry(_PLAIN, start, 0)
        assert all(self._entries), "every number has an object"
        identity = b"<%s>" % self._digest.hexdigest()[:32].encode()
        filtered, data = packed(b"".join(self._entries))
        entries = b"/Type /XRef /Size %d /W [%d %d %d] /Root %d 0 R /ID [%s %s] %s" % (
            *(len(self._entries), *_WIDTHS, catalog, identity, identity, filtered),
        )
        if information:
            entries += b" /Info " + information
        self.put_stream(number, entries, data)
        self._write(b"startxref\n%d\n%%%%EOF\n" % start)

    def _pack(self) -> None:
        """Write the waiting objects as an object stream."""
        if not self._waiting:
            return
        number, offset, head = self.number(), 0, []
        for place, (inner, text) in enumerate(self._waiting):
            self._entries[inner] = _entry(_IN_STREAM, number, place)
            head.append(b"%d %d" % (inner, offset))
            offset += len(text) + 1
        first = b" ".join(head) + b"\n"
        filtered, data = packed(first + b"\n".join(text for _, text in self._waiting))
        entries = b"/Type /ObjStm /N %d /First %d %s" % (len(self._waiting), len(first), filtered)
        self._waiting.clear()
        self.put_stream(number, entries, data)

    def _write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._file.write(piece)
            self._digest.update(piece)
            self._at += len(piece)


def packed(data: bytes, level: int = 6) -> tuple[bytes, bytes]:
    """Deflate a stream's data: the dictionary's entry that says so, and the data.

    Deflated data that ends in a carriage return looks one byte shorter than its length: that is left as it is.
    """
    deflated = zlib.compress(data, level)
    return (b"", data) if deflated.endswith(b"\r") else (b"/Filter /FlateDecode", deflated)


def _entry(*fields: int) -> bytes:
    return b"".join(value.to_bytes(width, "big") for value, width in zip(fields, _WIDTHS, strict=True))
