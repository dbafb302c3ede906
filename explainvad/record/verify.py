"""Verification: proves that a run folder is what was written, or names the first thing in it that is not.

What it can find by itself: every alteration, removal, insertion or reordering that does not rewrite the
record consistently from the altered line to its end, in the artifacts, the audits and the rendered reports. Whoever
can rewrite all of these together, PDF included, leaves nothing behind that contradicts itself; that is found only
by comparing with a results head that was kept elsewhere (on paper, or in a signed PDF), which is what
``expected_head`` is for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from explainvad.errors import IntegrityError, UsageError
from explainvad.record.audits import audit_entries
from explainvad.record.events import History
from explainvad.record.ledger import LEDGER
from explainvad.record.pdf_contents import UnreadablePdfError, read_contents
from explainvad.record.pdf_signatures import read_certificates
from explainvad.record.problems import Problem, Verification, reason
from explainvad.record.signings import Signing, staged_file
from explainvad.record.storage import ARTIFACT_FOLDERS, file_sha256, folder_entries, open_below
from explainvad.record.verify_ledger import as_head, head_problems, ledger_problems
from explainvad.record.verify_pdf import Findings, check_pdf, made_from

REPORT_FILES = ("report.pdf", "report.html", "report.json", "results.csv", "results.parquet", "regions.coco.json")
REPORT_FOLDERS = ("report_images", "maps_tiff")  # further pages of the HTML report, and anomaly maps
_HOLD_THE_HEAD = (".pdf", ".json", ".parquet")  # report files that name the results that they were made from


def verify_run(
    run_dir: str | Path, *, expected_head: str | None = None, trust: Sequence[str | Path] = ()
) -> Verification:
    """Check a run folder against its ledger, and the ledger against itself and the rendered PDF with its signatures.

    ``expected_head`` is the results head as printed in the report (case and spaces do not matter); ``trust`` names
    files with certificates (PEM or DER) that signatures have to lead to. Whatever the folder holds is reported, not
    raised, and no link in it is followed. Raises UsageError only when ``run_dir`` is no folder, ``expected_head`` is
    no SHA-256 or a certificate cannot be read.
    """
    root = Path(run_dir)
    if not root.is_dir():
        raise UsageError(f"expected the folder of a run, got {root}")
    expected = None if expected_head is None else as_head(expected_head)
    roots = read_certificates(trust)
    try:
        with open_below(root, LEDGER) as source:
            data = source.read()
    except (OSError, IntegrityError) as error:
        return Verification((), (Problem(LEDGER, reason(error)),), None)

    # Follow the chain from its start
    history = History()
    problems = list(ledger_problems(data, history))
    sound = not problems
    checked = [f"{LEDGER}: form, chain and meaning of its lines"]
    if expected is not None:
        checked.append("the results head against the expected one")
        problems += head_problems(history, expected)

    # Compare the files with it; what it leaves out is a problem only where it is whole
    checked.append(f"{len(history.artifacts)} artifacts: present and unaltered")
    problems += _altered(root, history.artifacts)
    if history.audits.files:
        checked.append(f"{', '.join(history.audits.files)}: as taken in")
        problems += _altered(root, history.audits.files)
    checked.append(f"{len(history.rendered)} report files: as they were rendered")
    problems += _explained(root, history, _altered(root, history.rendered))
    if sound:
        checked.append("no files that the ledger does not account for")
        problems += _unaccounted(root, history)
    for name in sorted({*history.rendered, *REPORT_FILES}):
        content = _content(root, name) if name.endswith(_HOLD_THE_HEAD) else None
        if content is not None and history.head is not None:
            told = history.rendered_after.get(name)
            older = told is not None and told < len(history.audits.results)
            checked.append(f"{name}: made from this record{', before the latest audit' if older else ''}")
            if name.endswith(".pdf"):
                # An audit between two renderings changes report.json, and the PDF keeps the one of its own time
                same_time = told == history.rendered_after.get("report.json")
                beside = _content(root, "report.json") if same_time else None
                found = _pdf_findings(name, content, history, data, beside, roots)
                checked += found.checked
                problems += found.problems
            else:
                problems += made_from(name, content, history.head)
    return Verification(tuple(checked), tuple(problems), history.head)


def _altered(root: Path, digests: Mapping[str, str]) -> Iterator[Problem]:
    """Compare files with their recorded hashes."""
    for name, expected in digests.items():
        try:
            got = file_sha256(root, name)
        except (OSError, IntegrityError) as error:
            yield Problem(name, reason(error))
        else:
            if got != expected:
                yield Problem(name, "altered: its SHA-256 is not the recorded one", expected, got)


def _explained(root: Path, history: History, problems: Iterable[Problem]) -> Iterator[Problem]:
    """Say of a signed file that is not there what is there instead."""
    for problem in problems:
        signing = _last_signing(history, problem.where)
        if signing is None or problem.got is None:
            yield problem
        elif problem.got == signing.before and _is_waiting(root, signing):
            what = (
                f"signed by {signing.name}, but the signed file is not in place yet: the same sign command finishes it"
            )
            yield replace(problem, what=what)
        elif problem.got in {s.before for s in history.signings if s.file == problem.where}:
            yield replace(problem, what="replaced by the file as it was before it was signed")
        else:
            yield replace(problem, what="altered after it was signed: its SHA-256 is not the recorded one")


def _last_signing(history: History, name: str) -> Signing | None:
    return next((signing for signing in reversed(history.signings) if signing.file == name), None)


def _is_waiting(root: Path, signing: Signing | None) -> bool:
    """Whether the signed file lies ready beside the report, because its signing was cut short."""
    try:
        return signing is not None and file_sha256(root, staged_file(signing.file)) == signing.after
    except (OSError, IntegrityError):
        return False


def _unaccounted(root: Path, history: History) -> Iterator[Problem]:
    """Find artifacts, audit files and report files that no line names."""
    reports = (name for name in REPORT_FILES if os.path.lexists(root / name))
    known = {*history.artifacts, *history.audits.names, *history.rendered}
    kept = folder_entries(root, (*ARTIFACT_FOLDERS, *REPORT_FOLDERS))
    for name in (*kept, *audit_entries(root), *reports):
        if name not in known:
            yield Problem(name, "no ledger line accounts for this file")
    for name in history.rendered:
        if os.path.lexists(root / staged_file(name)) and not _is_waiting(root, _last_signing(history, name)):
            what = "left by a signing that ended before it was recorded: sign again, or delete it"
            yield Problem(staged_file(name), what)


def _pdf_findings(
    name: str, content: bytes, history: History, ledger: bytes, beside: bytes | None, trust: Sequence[bytes]
) -> Findings:
    try:
        contents = read_contents(content)
    except UnreadablePdfError as error:
        return Findings(problems=[Problem(name, f"its attachments cannot be read: {error}")])
    return check_pdf(name, content, contents, history, ledger, beside, trust)


def _content(root: Path, name: str) -> bytes | None:
    """Return a file's bytes, or None where it is missing or must not be read."""
    try:
        with open_below(root, name) as source:
            return source.read()
    except (OSError, IntegrityError):
        return None
