"""What a PDF from anywhere attaches and prints, read as hostile: nothing in it may exhaust memory or raise.

Every stream of the file is inflated once, with a limit, before a library that knows no limits opens it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from io import BytesIO

MIB = 1 << 20
LARGEST_STREAM = 512 * MIB  # inflated; a ledger line takes some 3 kB, so this is the record of 170,000 images
LARGEST_TOTAL = 4096 * MIB
_FILTERS = {b"", b"FlateDecode", b"DCTDecode", b"JPXDecode"}  # one at most for a stream: nothing inflates twice
_STREAM = re.compile(rb"stream\r?\n")
_FILTER = re.compile(rb"/Filter\s*(\[[^\]]*\]|/[^\s/\[\]<>()]+|\d+\s+\d+\s+R)")
_DICTIONARY_BYTES = 4096
_HEAD = re.compile(r"Headhash\(sha256\)([0-9a-f]{64})")


class UnreadablePdfError(ValueError):
    """The file is no PDF that can be read, or none that it is safe to read; the message says why."""


@dataclass(frozen=True, slots=True)
class PdfContents:
    """``attached``: name -> bytes. ``text``: what the last pages print, without blanks, from the head hash on."""

    attached: dict[str, bytes]
    text: str

    @property
    def printed_head(self) -> str | None:
        """The results head as printed in the appendix."""
        found = _HEAD.search(self.text)
        return found[1] if found else None


def read_contents(content: bytes) -> PdfContents:
    """Read attachments and text. Raises UnreadablePdfError, and nothing else, whatever the bytes are."""
    _refuse_bombs(content)
    try:
        return PdfContents(_attachments(content), _last_text(content))
    except Exception as error:  # a damaged PDF can fail in any way
        raise UnreadablePdfError(str(error) or type(error).__name__) from error


def _attachments(content: bytes) -> dict[str, bytes]:
    import pikepdf

    with pikepdf.open(BytesIO(content)) as pdf:
        return {name: pdf.attachments[name].get_file().read_bytes() for name in pdf.attachments}


def _last_text(content: bytes) -> str:
    """Return the text of the pages from the one that prints the head hash, of all pages where none does."""
    import pypdfium2

    text = ""
    with pypdfium2.PdfDocument(content) as pdf:
        for number in reversed(range(len(pdf))):
            page = "".join(pdf[number].get_textpage().get_text_bounded().split())
            text = page + text
            if _HEAD.search(text):
                break
    return text


def _refuse_bombs(content: bytes) -> None:
    """Raise UnreadablePdfError when the streams inflate to more than a report's, or in ways that no report uses."""
    total = 0
    for match in _STREAM.finditer(content):
        if content[max(0, match.start() - 3) : match.start()] == b"end":
            continue
        dictionary = content[max(0, match.start() - _DICTIONARY_BYTES) : match.start()].rpartition(b"obj")[2]
        plain = re.sub(rb"#([0-9A-Fa-f]{2})", lambda code: bytes.fromhex(code[1].decode()), dictionary)
        for declared in _FILTER.findall(plain):
            names = declared.strip(b"[]").split()
            if len(names) > 1 or (names and names[0].lstrip(b"/") not in _FILTERS):
                shown = declared[:60].decode("ascii", "backslashreplace")
                raise UnreadablePdfError(f"a stream with the filter {shown}, as no report has; it was not read")
        size = _inflated_size(content, match.end())
        total += size
        if size > LARGEST_STREAM or total > LARGEST_TOTAL:
            raise UnreadablePdfError(f"its streams inflate to more than {LARGEST_STREAM // MIB} MiB; it was not read")


def _inflated_size(content: bytes, start: int) -> int:
    """Return how much the zlib data at ``start`` inflates to, counted up to just beyond LARGEST_STREAM."""
    inflater, size, place = zlib.decompressobj(), 0, start
    chunk = b""
    try:
        while not inflater.eof and size <= LARGEST_STREAM:
            if not chunk:
                chunk = content[place : place + MIB]
                place += len(chunk)
                if not chunk:
                    break
            size += len(inflater.decompress(chunk, MIB))
            chunk = inflater.unconsumed_tail
    except zlib.error:
        pass
    return size
