"""A PDF report by itself: what it carries must be one record, and whatever it carries must not harm the reader."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pikepdf
import pytest
from pikepdf import Array, Name
from run_factories import write_pdf

from explainvad.errors import UsageError
from explainvad.record import pdf_contents
from explainvad.record.finished import read_report
from explainvad.record.verify_pdf import verify_pdf

TABLE = "file,sha256,decision,p_value,score,image_id\n"


@pytest.fixture
def parts(finished: Path) -> tuple[dict[str, bytes], str]:
    """What the report of a finished run attaches, and the head it prints."""
    report = read_report(finished)
    ledger = b"".join((finished / "ledger.jsonl").read_bytes().splitlines(keepends=True)[:7])
    rows = ""
    for r in report.records:
        numbers = f"{r.verdict.p_value},{r.verdict.score}" if r.verdict else ","
        rows += f"f,{r.sha256 or ''},{r.decision},{numbers},{r.image_id}\n"
    masks = {"masks/img-00001.png": (finished / "masks" / "img-00001.png").read_bytes()}
    attached = {"ledger.jsonl": ledger, "report.json": (finished / "report.json").read_bytes()} | masks
    return attached | {"results.csv": (TABLE + rows).encode()}, report.provenance.head_hash


def problems(path: Path, **options: str) -> list[str]:
    verification = verify_pdf(path, **options)
    return [str(problem) for problem in verification.problems]


def test_a_report_proves_itself(parts: tuple[dict[str, bytes], str], tmp_path: Path) -> None:
    attached, head = parts
    write_pdf(tmp_path / "r.pdf", attached, head)
    verification = verify_pdf(tmp_path / "r.pdf", expected_head=head.upper())
    assert verification.problems == ()
    assert verification.head_hash == head
    assert verification.checked[-2:] == ("r.pdf: 4 attached files and the printed head hash", "r.pdf: not signed")
    assert "the results head differs" in problems(tmp_path / "r.pdf", expected_head="0" * 64)[0]


def flipped(data: bytes) -> bytes:
    return data.replace(b'"score":', b'"score":1', 1)


@pytest.mark.parametrize(
    ("name", "alter", "message"),
    [
        ("ledger.jsonl", lambda data: b"", "attached ledger.jsonl line 1: run_finished is missing"),
        ("ledger.jsonl", flipped, "attached ledger.jsonl line 3: the line was altered"),
        ("ledger.jsonl", lambda data: data[: data.rindex(b"\n", 0, -1) + 1], "line 7: run_finished is missing"),
        ("report.json", lambda data: b"{}", "attached report.json: made from other results"),
        ("results.csv", lambda data: data.replace(b"REJECT", b"ACCEPT"), "row 3 is not what the ledger says"),
        ("results.csv", lambda data: data[: data.rindex(b"f,")], "not one row for each file"),
        ("results.csv", lambda data: b"\xff", "cannot be read as a table"),
        ("masks/img-00001.png", lambda data: data + b".", "its SHA-256 is not the recorded one"),
    ],
)
def test_what_is_attached_must_be_what_the_ledger_says(
    parts: tuple[dict[str, bytes], str], tmp_path: Path, name: str, alter: Callable[[bytes], bytes], message: str
) -> None:
    attached, head = parts
    assert alter(attached[name]) != attached[name]
    write_pdf(tmp_path / "r.pdf", attached | {name: alter(attached[name])}, head)
    assert message in problems(tmp_path / "r.pdf")[0]


def test_the_printed_head_is_compared(parts: tuple[dict[str, bytes], str], tmp_path: Path) -> None:
    attached, head = parts
    write_pdf(tmp_path / "r.pdf", attached, "0" * 64)
    what = "r.pdf: the head hash printed in it is not that of the results"
    assert problems(tmp_path / "r.pdf") == [f"{what} (expected {head}, got {'0' * 64})"]
    write_pdf(tmp_path / "r.pdf", attached, "")
    assert problems(tmp_path / "r.pdf") == [f"{what} (expected {head}, got none)"]


def test_a_file_without_a_ledger_is_no_report(tmp_path: Path) -> None:
    write_pdf(tmp_path / "r.pdf", {})
    assert problems(tmp_path / "r.pdf") == ["r.pdf: ledger.jsonl is not attached to it"]
    with pytest.raises(UsageError, match="missing"):
        verify_pdf(tmp_path / "none.pdf")
    with pytest.raises(UsageError, match="64 hex digits"):
        verify_pdf(tmp_path / "r.pdf", expected_head="12")


def test_a_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_contents, "LARGEST_STREAM", 4 << 20)
    write_pdf(tmp_path / "r.pdf", {"ledger.jsonl": bytes(64 << 20)})
    assert (tmp_path / "r.pdf").stat().st_size < 1 << 20
    monkeypatch.setattr(pikepdf, "open", lambda *_: pytest.fail("the file was opened"))
    assert "inflate to more than 4 MiB" in problems(tmp_path / "r.pdf")[0]


@pytest.mark.parametrize("declared", [Array([Name.FlateDecode] * 2), Name.LZWDecode, Name.RunLengthDecode])
def test_filters_that_no_report_uses_are_refused(tmp_path: Path, declared: pikepdf.Object) -> None:
    with pikepdf.new() as pdf:
        pdf.add_blank_page()
        twice = zlib.compress(zlib.compress(bytes(9999)))
        pdf.Root.Bomb = pikepdf.Stream(pdf, twice)
        pdf.Root.Bomb.write(twice, filter=declared)
        pdf.save(tmp_path / "r.pdf", stream_decode_level=pikepdf.StreamDecodeLevel.none, compress_streams=False)
    assert "as no report has" in problems(tmp_path / "r.pdf")[0]


def test_nothing_that_a_file_holds_makes_verification_raise(
    parts: tuple[dict[str, bytes], str], tmp_path: Path
) -> None:
    attached, head = parts
    path = tmp_path / "r.pdf"
    write_pdf(path, attached, head)
    whole, rng = path.read_bytes(), random.Random(15)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 20, 400])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        assert all(problem.isprintable() for problem in problems(path))
    for data in (b"", b"%PDF-1.7", b"\x00" * 999, rng.randbytes(5000)):
        path.write_bytes(data)
        assert problems(path)[0].startswith("r.pdf: cannot be read")
