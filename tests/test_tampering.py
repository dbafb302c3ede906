"""A thousand edits of one finished, rendered and twice signed run: each is found, and named where it was made.

Every fifth of them in the usual tests, all with ``--thorough``.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pikepdf
import pytest
import rfc8785
from command_line import tree
from run_factories import forge, read_members
from signed_runs import People, signed_again, signed_once
from whole_runs import encoded, flagged_run, photo, pictures, rendered_in_all_formats

from explainvad.record import verify, verify_pdf
from explainvad.record.finished import read_report
from explainvad.record.verify import verify_run

LEDGER, PDF = "ledger.jsonl", "report.pdf"
FOLDERS = ("evidence", "maps", "masks", "maps_tiff", "report_images")


@dataclass(frozen=True)
class Whole:
    """The run, what its files held before any edit, and its report in the states before each signature."""

    root: Path
    files: dict[str, bytes]
    unsigned: bytes
    signed_once: bytes
    head: str

    @property
    def lines(self) -> list[bytes]:
        return self.files[LEDGER].splitlines(keepends=True)

    @property
    def n_results(self) -> int:
        """Lines up to the results head; those behind it tell of reports and signatures."""
        return read_report(self.root).provenance.n_ledger_lines


@dataclass(frozen=True)
class Edit:
    """``files``: name -> new bytes, None where it is deleted. A problem has to begin with one of ``named``."""

    files: dict[str, bytes | None]
    named: Sequence[str]
    head_moved: bool = False  # whether a head kept elsewhere finds it too


@pytest.fixture(scope="module")
def whole(people: People, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("tampering")
    run = rendered_in_all_formats(flagged_run(folder / "run"))
    once = signed_once(run, people, folder / "once")
    twice = signed_again(once, people, folder / "twice")
    files = tree(twice)
    assert {name.split("/")[0] for name in files} > {*FOLDERS, LEDGER, PDF, "report.html", "results.parquet"}
    head = read_report(twice).provenance.head_hash
    return Whole(twice, files, (run / PDF).read_bytes(), (once / PDF).read_bytes(), head)


@pytest.fixture
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a PDF holds depends on its bytes alone: the report that an edit leaves as it was is read only once."""
    monkeypatch.setattr(verify, "read_contents", lru_cache(maxsize=2)(verify.read_contents))
    read = verify_pdf.read_signatures
    remembered = lru_cache(maxsize=2)(lambda content: read(content))
    monkeypatch.setattr(verify_pdf, "read_signatures", lambda content, _: remembered(content))


def flipped(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


def line_name(number: int) -> str:
    return f"{LEDGER} line {number}: "


# Bytes of files


def byte_of_a_file(whole: Whole, rng: random.Random) -> Edit:
    name = rng.choice([name for name in sorted(whole.files) if name not in (LEDGER, PDF)])
    return Edit({name: flipped(whole.files[name], rng)}, [f"{name}: altered"])


def byte_of_the_ledger(whole: Whole, rng: random.Random) -> Edit:
    data = whole.files[LEDGER]
    at = rng.randrange(len(data))
    damaged = data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
    return Edit({LEDGER: damaged}, [line_name(data[:at].count(b"\n") + 1)])


def byte_of_the_pdf(whole: Whole, rng: random.Random) -> Edit:
    return Edit({PDF: flipped(whole.files[PDF], rng)}, [f"{PDF}: altered after it was signed"])


def picture_replaced(whole: Whole, rng: random.Random) -> Edit:
    """By another valid one, of this run or made for it."""
    name = rng.choice([n for n in sorted(whole.files) if n.startswith(("evidence/", "maps/", "masks/"))])
    folder, suffix = name.split("/")[0], Path(name).suffix
    others = [d for n, d in sorted(whole.files.items()) if n.startswith(folder) and d != whole.files[name]]
    made = encoded(photo(rng.randrange(1000, 9999)), "JPEG" if suffix == ".jpg" else "PNG")
    return Edit({name: rng.choice([*others, made])}, [f"{name}: altered"])


def file_removed(whole: Whole, rng: random.Random) -> Edit:
    name = rng.choice(sorted(whole.files))
    return Edit({name: None}, [f"{name}: missing"])


def file_added(whole: Whole, rng: random.Random) -> Edit:
    name = f"img-{rng.randrange(9, 99):05d}"
    data = rng.choice([b"", b"x", *pictures(name, 1).values()])
    below = rng.choice(["", "", "below/", "below/.hidden/"])
    path = f"{rng.choice(FOLDERS)}/{below}{rng.choice(['', '.'])}{name}{rng.choice(['', '.png', '.html'])}"
    path = rng.choice([path] * 9 + [f"{PDF}.signing"])
    return Edit({path: data}, [f"{path}: "])


# Lines of the ledger


def of_lines(lines: Sequence[bytes], *named: str) -> Edit:
    return Edit({LEDGER: b"".join(lines)}, named)


def line_removed(whole: Whole, rng: random.Random) -> Edit:
    lines, at = whole.lines, rng.randrange(len(whole.lines) - 1)  # the last one is in line_cut_off
    return of_lines([*lines[:at], *lines[at + 1 :]], line_name(at + 1))


def lines_swapped(whole: Whole, rng: random.Random) -> Edit:
    lines = whole.lines
    first, second = sorted(rng.sample(range(len(lines)), 2))
    lines[first], lines[second] = lines[second], lines[first]
    return of_lines(lines, line_name(first + 1))


def line_doubled(whole: Whole, rng: random.Random) -> Edit:
    lines, at, to = whole.lines, rng.randrange(len(whole.lines)), rng.randrange(len(whole.lines) + 1)
    lines.insert(to, lines[at])
    # A line that follows itself is seen at the second of the two
    return of_lines(lines, line_name(to + 2 if to == at else to + 1))


def lines_cut_off(whole: Whole, rng: random.Random) -> Edit:
    """Whole lines. Behind the results, the files that these lines tell of are then without one."""
    kept = rng.randrange(len(whole.lines))
    behind = kept >= whole.n_results
    return of_lines(whole.lines[:kept], f"{PDF}: " if behind else line_name(kept + 1))


def line_cut_in_two(whole: Whole, rng: random.Random) -> Edit:
    """Within a line; the last byte of all, a newline, is one of these."""
    lines = whole.lines
    number = rng.choice([rng.randrange(len(lines)), len(lines) - 1])
    end = rng.choice([rng.randrange(1, len(lines[number])), len(lines[number]) - 1])
    return of_lines([*lines[:number], lines[number][:end]], line_name(number + 1))


def changed(value: Any, rng: random.Random) -> Any:
    """The same JSON with one value that is another, mostly of the same type."""
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(value))
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        shorter = [*value[:at], *value[at + 1 :]]
        return rng.choice([shorter, [*value[:at], changed(value[at], rng), *value[at + 1 :]]])
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice([v for v in (value + 1, value * 0.5 + 0.125, value + 0.03125) if v != value])
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        old = value[at]
        digit = "0123456789abcdef"[("0123456789abcdef".find(old) + rng.randrange(1, 16)) % 16]
        return value[:at] + (digit if digit != old else "g") + value[at + 1 :]
    return "more"


def edited(whole: Whole, rng: random.Random) -> tuple[list[dict[str, Any]], int]:
    """All lines, one of them saying something else; its number from 0. Of when they were written, nobody vouches."""
    members = [json.loads(line) for line in whole.lines]
    number = rng.randrange(len(members))
    before = deepcopy(members[number])
    if number < whole.n_results and rng.random() < 0.1:
        members[number]["time"] = changed(before["time"], rng)
    else:
        members[number]["body"] = changed(before["body"], rng)
    assert members[number] != before
    return members, number


def line_resealed(whole: Whole, rng: random.Random) -> Edit:
    """Its own trailer is right, the next line still tells of the old one; at the end of the ledger none does."""
    members, number = edited(whole, rng)
    bare = {k: v for k, v in members[number].items() if k != "trailer"}
    resealed = rfc8785.dumps({**bare, "trailer": hashlib.sha256(rfc8785.dumps(bare)).hexdigest()})
    lines = whole.lines
    last = number == len(lines) - 1
    lines[number] = resealed + b"\n"
    return of_lines(lines, line_name(number + 1), *([f"{PDF}: ", f"{PDF}, "] if last else []))


def rest_chained_anew(whole: Whole, rng: random.Random) -> Edit:
    """Nothing in the ledger is wrong then, but the signed PDF tells of another, or the files do."""
    members, number = edited(whole, rng)
    folder = whole.root.parent / "forged"
    folder.mkdir(exist_ok=True)
    forge(folder, members)
    assert len(read_members(folder)) == len(members)
    behind = number >= whole.n_results
    # The line, or a later one that contradicts it
    named = [line_name(later + 1) for later in range(number, len(members))]
    if not behind:
        named.append(f"{PDF}: the attached")
    else:  # or a file that is told of otherwise, or no more
        named += [f"{name}: " for name in whole.files if not name.startswith(("evidence/", "maps/", "masks/"))]
    return Edit({LEDGER: (folder / LEDGER).read_bytes()}, named, head_moved=not behind)


# The PDF, written anew


def rewritten(content: bytes, edit: Callable[[pikepdf.Pdf], None]) -> bytes:
    buffer = BytesIO()
    with pikepdf.open(BytesIO(content)) as pdf:
        edit(pdf)
        pdf.save(buffer)
    return buffer.getvalue()


def attachment_replaced(rng: random.Random) -> Callable[[pikepdf.Pdf], None]:
    def replace(pdf: pikepdf.Pdf) -> None:
        name = rng.choice(sorted(pdf.attachments))
        data = flipped(pdf.attachments[name].get_file().read_bytes(), rng)
        pdf.attachments[name] = pikepdf.AttachedFileSpec(pdf, data, filename=name)

    return replace


def page_altered(rng: random.Random) -> Callable[[pikepdf.Pdf], None]:
    def alter(pdf: pikepdf.Pdf) -> None:
        page = rng.choice(list(pdf.pages))
        place = f"{rng.randrange(500)} {rng.randrange(700)} 90 20".encode()
        page.contents_add(b"q 1 1 1 rg " + place + b" re f Q")

    return alter


def page_removed(rng: random.Random) -> Callable[[pikepdf.Pdf], None]:
    def remove(pdf: pikepdf.Pdf) -> None:
        del pdf.pages[rng.randrange(len(pdf.pages))]

    return remove


def pdf_attachment(whole: Whole, rng: random.Random) -> Edit:
    state = rng.choice([whole.unsigned, whole.signed_once, whole.files[PDF]])
    return Edit({PDF: rewritten(state, attachment_replaced(rng))}, [f"{PDF}: altered"])


def pdf_page(whole: Whole, rng: random.Random) -> Edit:
    state = rng.choice([whole.unsigned, whole.signed_once, whole.files[PDF]])
    return Edit({PDF: rewritten(state, page_altered(rng))}, [f"{PDF}: altered"])


def pdf_before_signing(whole: Whole, rng: random.Random) -> Edit:
    return Edit({PDF: rng.choice([whole.unsigned, whole.signed_once])}, [f"{PDF}: replaced by the file as it was"])


EDITS = {
    byte_of_a_file: 250,
    byte_of_the_ledger: 100,
    byte_of_the_pdf: 50,
    picture_replaced: 60,
    file_removed: 60,
    file_added: 60,
    line_removed: 50,
    lines_swapped: 50,
    line_doubled: 50,
    lines_cut_off: 40,
    line_cut_in_two: 40,
    line_resealed: 60,
    rest_chained_anew: 80,
    pdf_attachment: 24,
    pdf_page: 22,
    pdf_before_signing: 4,
}


def apply(root: Path, files: dict[str, bytes | None]) -> None:
    for name, data in files.items():
        path = root / name
        if data is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


@pytest.mark.usefixtures("_read_once")
def test_a_thousand_edits_are_found_and_named(whole: Whole, request: pytest.FixtureRequest) -> None:
    step = 1 if request.config.getoption("--thorough") else 5
    assert verify_run(whole.root, expected_head=whole.head).ok
    assert sum(EDITS.values()) == 1000
    unfound: list[str] = []
    for kind, number in EDITS.items():
        for seed in range(0, number, step):
            edit = kind(whole, random.Random(f"{kind.__name__} {seed}"))
            assert all(data != whole.files.get(name) for name, data in edit.files.items()), (kind, seed)
            apply(whole.root, edit.files)
            told = [str(problem) for problem in verify_run(whole.root).problems]
            if not any(problem.startswith(tuple(edit.named)) for problem in told):
                unfound.append(f"{kind.__name__} {seed}: expected {edit.named}, got {[p[:90] for p in told]}")
            if edit.head_moved:
                by_head = verify_run(whole.root, expected_head=whole.head).problems
                if not any(problem.expected == whole.head for problem in by_head) and told == list(map(str, by_head)):
                    unfound.append(f"{kind.__name__} {seed}, by the head")
            apply(whole.root, {name: whole.files.get(name) for name in edit.files})
    assert unfound == [], f"{Counter(line.split()[0] for line in unfound)}"
    assert tree(whole.root) == whole.files and verify_run(whole.root).ok


# The signed PDF alone


def bytes_altered(content: bytes, rng: random.Random) -> bytes:
    return flipped(content, rng)


def bytes_blanked(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) - 64)
    return content[:at] + b" " * 64 + content[at + 64 :]


def end_cut_off(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) - 1)]


def more_behind_the_end(content: bytes, rng: random.Random) -> bytes:
    return content + rng.choice([b"\n", b" ", b"%%EOF\n", b"%" + rng.randbytes(20), content])


def updated(content: bytes, rng: random.Random) -> bytes:
    """One object anew behind the end, as an incremental update does it."""
    with pikepdf.open(BytesIO(content)) as pdf:
        page = rng.choice(list(pdf.pages))
        page.MediaBox = [0, 0, rng.randrange(9, 99), 9]
        number, text = page.objgen[0], page.obj.unparse(resolved=True)
        size = int(pdf.trailer.Size)
        root = pdf.Root.objgen[0]
    previous = content.rpartition(b"startxref")[2].split()[0]
    body = b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"xref\n%d 1\n%010d 00000 n \n" % (number, len(content))
    trailer = b"trailer\n<</Size %d /Root %d 0 R /Prev %s>>\n" % (size, root, previous)
    return content + body + table + trailer + b"startxref\n%d\n%%%%EOF\n" % (len(content) + len(body))


def anew(make: Callable[[random.Random], Callable[[pikepdf.Pdf], None]]) -> Callable[[bytes, random.Random], bytes]:
    return lambda content, rng: rewritten(content, make(rng))


ALONE = {
    "bytes altered": (bytes_altered, 35),
    "bytes blanked": (bytes_blanked, 10),
    "end cut off": (end_cut_off, 15),
    "more behind the end": (more_behind_the_end, 5),
    "updated": (updated, 10),
    "attachment replaced": (anew(attachment_replaced), 12),
    "page altered": (anew(page_altered), 8),
    "page removed": (anew(page_removed), 5),
}


def test_a_hundred_edits_of_the_signed_pdf_are_found_in_it_alone(whole: Whole, tmp_path: Path) -> None:
    assert verify_pdf.verify_pdf(whole.root / PDF).ok
    assert sum(number for _, number in ALONE.values()) == 100
    path = tmp_path / PDF
    unfound = []
    for name, (alter, number) in ALONE.items():
        for seed in range(number):
            altered = alter(whole.files[PDF], random.Random(f"{name} {seed}"))
            assert altered != whole.files[PDF], (name, seed)
            path.write_bytes(altered)
            told = list(map(str, verify_pdf.verify_pdf(path).problems))
            if not told or not all(problem.startswith(PDF) for problem in told):
                unfound.append(f"{name} {seed}: {told}")
    assert unfound == []
