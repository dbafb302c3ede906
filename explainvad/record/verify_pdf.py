"""Verification of a PDF report against the ledger: its own, attached one, or that of the run folder it lies in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from explainvad.errors import UsageError
from explainvad.record.events import History
from explainvad.record.ledger import LEDGER, printable
from explainvad.record.pdf_contents import PdfContents, UnreadablePdfError, read_contents
from explainvad.record.pdf_signatures import SignatureFacts, is_signed, read_certificates, read_signatures
from explainvad.record.problems import Problem, Verification, reason
from explainvad.record.storage import sha256_hex
from explainvad.record.verify_ledger import as_head, head_problems, ledger_problems
from explainvad.types import ImageRecord

JSON_FILE, TABLE = "report.json", "results.csv"


@dataclass(slots=True)
class Findings:
    """What was checked of one PDF, and what is wrong with it."""

    checked: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def verify_pdf(path: str | Path, *, expected_head: str | None = None, trust: Sequence[str | Path] = ()) -> Verification:
    """Check a PDF report by itself: the attached ledger, what is attached and printed against it, the signatures.

    ``expected_head`` and ``trust`` are those of :func:`explainvad.record.verify.verify_run`. Whatever the file holds is
    reported, not raised. Raises UsageError only when it cannot be opened, or for what was given beside it.
    """
    path = Path(path)
    expected = None if expected_head is None else as_head(expected_head)
    roots = read_certificates(trust)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {reason(error)}; expected the folder of a run, or a PDF report") from error
    name = path.name
    try:
        contents = read_contents(content)
    except UnreadablePdfError as error:
        return Verification((), (Problem(name, f"cannot be read: {error}"),), None)

    # Follow the chain of the ledger that it carries
    history = History()
    if LEDGER not in contents.attached:
        return Verification((), (Problem(name, f"{LEDGER} is not attached to it"),), None)
    ledger = contents.attached[LEDGER]
    problems = [replace(p, where=f"{name}, attached {p.where}") for p in ledger_problems(ledger, history)]
    checked = [f"{name}, attached {LEDGER}: form, chain and meaning of its lines"]
    if expected is not None:
        checked.append("the results head against the expected one")
        problems += head_problems(history, expected)

    # Compare what is attached and printed with it
    if history.head is not None:
        found = check_pdf(name, content, contents, history, ledger, trust=roots)
        checked += found.checked
        problems += found.problems
    return Verification(tuple(checked), tuple(problems), history.head)


def check_pdf(
    name: str,
    content: bytes,
    contents: PdfContents,
    history: History,
    ledger: bytes,
    beside: bytes | None = None,
    trust: Sequence[bytes] = (),
) -> Findings:
    """Compare a PDF with the finished record ``history``, whose bytes are ``ledger``.

    ``beside`` is the report.json that has to be the attached one, where there is such a file.
    """
    assert history.head is not None
    found = Findings()
    if not content.rstrip(b"\r\n").endswith(b"%%EOF"):
        # Cut off within the update of its first signature, it would read as the unsigned report that it begins with
        found.problems.append(Problem(name, "cut off: it does not end as a PDF does"))
    found.checked.append(f"{name}: {len(contents.attached)} attached files and the printed head hash")
    found.problems += _attachment_problems(name, contents, history, ledger, beside)
    if contents.printed_head != history.head:
        what = "the head hash printed in it is not that of the results"
        found.problems.append(Problem(name, what, history.head, contents.printed_head or "none"))
    _check_signatures(found, name, content, history, trust)
    return found


def made_from(name: str, content: bytes, head: str) -> Iterator[Problem]:
    """Find out whether a report file names the results head."""
    if head.encode() not in content:
        yield Problem(name, f"made from other results: it does not hold the results head {head}")


def _attachment_problems(
    name: str, contents: PdfContents, history: History, ledger: bytes, beside: bytes | None
) -> Iterator[Problem]:
    attached, head = contents.attached, history.head
    assert head is not None
    for wanted in (LEDGER, JSON_FILE):
        if wanted not in attached:
            yield Problem(name, f"{wanted} is not attached to it")
    if LEDGER in attached:
        lines = attached[LEDGER].split(b"\n")
        if not ledger.startswith(attached[LEDGER]) or lines[-1]:
            yield Problem(name, f"the attached {LEDGER} is not the beginning of the one in the folder")
        elif head not in map(sha256_hex, lines):
            yield Problem(name, f"the attached {LEDGER} does not reach the results head {head}")
    if JSON_FILE in attached:
        if beside is not None and beside != attached[JSON_FILE]:
            yield Problem(name, f"the attached {JSON_FILE} is not the one in the folder")
        yield from made_from(f"{name}, attached {JSON_FILE}", attached[JSON_FILE], head)
    if TABLE in attached:
        yield from _table_problems(f"{name}, attached {TABLE}", attached[TABLE], history)
    for artifact in history.artifacts.keys() & attached.keys():
        expected, got = history.artifacts[artifact], sha256_hex(attached[artifact])
        if got != expected:
            yield Problem(f"{name}, attached {artifact}", "its SHA-256 is not the recorded one", expected, got)


def _table_problems(where: str, data: bytes, history: History) -> Iterator[Problem]:
    """Compare the table of results with the image lines, row by row."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        yield Problem(where, f"cannot be read as a table: {error}")
        return
    records = [history.records[image_id] for image_id in history.files]
    if len(rows) != len(records):
        yield Problem(where, "not one row for each file of the lot", str(len(records)), str(len(rows)))
    for number, (row, record) in enumerate(zip(rows, records, strict=False), start=2):
        for column, expected in _cells(record).items():
            if row.get(column) != expected:
                what = f"row {number} is not what the ledger says of {record.image_id}: {column}"
                yield Problem(where, what, expected, str(row.get(column)))
                return


def _cells(record: ImageRecord) -> dict[str, str]:
    verdict = record.verdict
    measured = {} if verdict is None else {"p_value": str(verdict.p_value), "score": str(verdict.score)}
    return {
        "image_id": record.image_id,
        "sha256": record.sha256 or "",
        "decision": record.decision.value,
        **measured,
    }


def _check_signatures(found: Findings, name: str, content: bytes, history: History, trust: Sequence[bytes]) -> None:
    """Check every signature by itself, then all of them against the ledger's lines."""
    signatures: list[SignatureFacts] = []
    if is_signed(content):
        try:
            signatures = read_signatures(content, trust)
        except ValueError as error:
            found.problems.append(Problem(name, f"a signature in it cannot be checked: {error}"))
            return
    if not signatures:
        found.checked.append(f"{name}: not signed")
    for signature in signatures:
        where = f"{name}, signature {signature.field}"
        found.checked.append(printable(f"{where}: {_told(signature)}"))
        found.checked.append(printable(f"{where}: {signature.coverage}; trust {signature.trust}"))
        found.problems += [Problem(where, fault) for fault in signature.faults]
    signings = [signing for signing in history.signings if signing.file == name]
    if signings:
        found.checked.append(f"{name}: signatures against the {len(signings)} that the ledger records")
        found.problems += _unrecorded(name, signatures, history)


def _told(signature: SignatureFacts) -> str:
    stamped = f"time-stamped {signature.stamped}" if signature.stamped else "no time stamp"
    return (
        f"by {signature.name}, {signature.time}, {stamped}, “{signature.reason}”; certificate {signature.subject}, "
        f"sha256 {signature.fingerprint}"
    )


def _unrecorded(name: str, signatures: Sequence[SignatureFacts], history: History) -> Iterator[Problem]:
    """Compare the signatures in a file with the lines that record them."""
    recorded = {
        s.field: (s.name, s.time, s.stated, s.subject, s.fingerprint) for s in history.signings if s.file == name
    }
    present = {s.field: (s.name, s.time, s.reason, s.subject, s.fingerprint) for s in signatures}
    for signed in recorded.keys() | present.keys():
        expected, got = recorded.get(signed), present.get(signed)
        if expected != got:
            what = f"its signature in the field {signed} is not the recorded one"
            yield Problem(name, what, ", ".join(expected or ("none",)), ", ".join(got or ("none",)))
