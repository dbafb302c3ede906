"""Between record and uncertainty: a random sample of the images that passed, looked at by a person.

Normal reference images cannot bound what an inspection misses; a sample that a person judged can. The bound is the
exact hypergeometric one. It holds at its confidence for one audit whose limit was set beforehand, for defects that a
person sees in what was looked at, and only if every sampled item was judged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from explainvad.errors import IntegrityError, UsageError
from explainvad.record.audits import AUDIT_FOLDER, AuditDraw, sample_file
from explainvad.record.run import Run
from explainvad.record.storage import storage_errors, write_below
from explainvad.report.exports import spreadsheet_text
from explainvad.types import AuditResult, ImageRecord
from explainvad.uncertainty.audit import draw_sample
from explainvad.uncertainty.lot_bounds import audit_sample_size, audit_upper_bound
from explainvad.whole_files import sync_folder

CONFIDENCE = 0.95
LIMIT = 0.01
COLUMNS = ("number", "image_id", "file", "sha256", "result", "comment")
GOOD, DEFECT = "good", "defect"
_NEEDED = ("image_id", "sha256", "result")
_NAMED = 3  # rows that a message names


def draw_audit(
    run_dir: str | Path, confidence: float | None = None, limit: float | None = None, *, again: bool = False
) -> tuple[AuditDraw, Path]:
    """Draw a sample of the images that passed, record it, and return it with the sheet to fill in.

    The sample is as large as it takes for a share above ``limit`` to be excluded at ``confidence`` when none of it
    is found defective. A draw without results is returned as it is; its sheet is written only where it is missing.
    ``confidence`` and ``limit`` are then those of that draw, else CONFIDENCE and LIMIT where not given. After results a
    further draw must be asked for by ``again``.

    Raises UsageError when the run is not finished, nothing passed or an argument is out of range, IntegrityError when
    the record was altered, StorageError when it cannot be written.
    """
    root = Path(run_dir)
    with Run.reopen(root) as run:
        draw = _open_draw(run)
        if draw is None:
            if run.audits.results and not again:
                raise UsageError(
                    f"{root} was audited already (draw {len(run.audits.draws)}), and an audit that is repeated until "
                    "it pleases bounds nothing: --again draws a further sample, and the number of draws is recorded"
                )
            draw = _new_draw(run, CONFIDENCE if confidence is None else confidence, LIMIT if limit is None else limit)
            run.add_draw(draw)
        elif confidence not in (None, draw.confidence) or limit not in (None, draw.limit):
            raise UsageError(
                f"draw {draw.draw} (confidence {draw.confidence:g}, limit {draw.limit:g}) has no results yet: record "
                "them first, or leave --confidence and --limit out to get its sheet again"
            )
        name = sample_file(draw.draw)
        if not (root / name).exists():
            write_below(root, name, _sheet(draw, run.done))
            with storage_errors(root):
                sync_folder(root / AUDIT_FOLDER)
    return draw, root / name


def record_audit(run_dir: str | Path, results: str | Path, auditor: str) -> AuditResult:
    """Take back the filled-in sheet of the open draw, record what it says and return it.

    ``results`` is a CSV file with the columns image_id, sha256 and result, separated by commas or semicolons, in any
    order of rows: every image of the sample once, each ``good`` or ``defect`` (in any case).

    Raises UsageError, naming the row, when it is anything else, or when no draw waits for results; otherwise as
    :func:`draw_audit`.
    """
    if not auditor.strip() or not auditor.isprintable():
        raise UsageError(f"--auditor expects the name of the person who looked, got {auditor!r}")
    with Run.reopen(run_dir) as run:
        draw = _open_draw(run)
        if draw is None:
            raise UsageError(f"no draw of {run_dir} waits for results: draw a sample first, without --results")
        try:
            table = Path(results).read_bytes()
        except OSError as error:
            raise UsageError(f"the results {results} cannot be read: {error.strerror or error}") from error
        found = _read_results(Path(results).name, table, draw, run.done)
        defective = tuple(image_id for image_id in draw.sample if found[image_id] == DEFECT)
        result = AuditResult(
            n_population=draw.population,
            sample=draw.sample,
            defective=defective,
            confidence=draw.confidence,
            limit=draw.limit,
            upper_count=audit_upper_bound(draw.population, len(draw.sample), len(defective), draw.confidence),
            auditor=auditor.strip(),
            n_draws=draw.draw,
        )
        run.add_audit(result, table)
    return result


def _new_draw(run: Run, confidence: float, limit: float) -> AuditDraw:
    for option, value in (("--confidence", confidence), ("--limit", limit)):
        if not 0 < value < 1:
            raise UsageError(f"{option} expects a share between 0 and 1, such as 0.95 or 0.01, got {value:g}")
    passed = run.passed
    if not passed:
        raise UsageError("no image of this run passed: there is nothing to draw a sample of")
    number = len(run.audits.draws) + 1
    sample = _sample(run, number, audit_sample_size(len(passed), confidence, limit))
    return AuditDraw(number, confidence, limit, len(passed), sample)


def _open_draw(run: Run) -> AuditDraw | None:
    """The draw that waits for results, proved to be the one that the results head gives."""
    draw = run.audits.open_draw
    if draw is not None and draw.sample != _sample(run, draw.draw, len(draw.sample)):
        raise IntegrityError(f"the sample of draw {draw.draw} in the ledger is not the one that this run gives")
    return draw


def _sample(run: Run, number: int, size: int) -> tuple[str, ...]:
    passed = run.passed
    assert run.head is not None
    return tuple(passed[i].image_id for i in draw_sample(run.head, number, len(passed), size))


def _sheet(draw: AuditDraw, records: Mapping[str, ImageRecord]) -> bytes:
    """One row for each image of the sample; with a byte order mark, without which spreadsheets garble names."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, image_id in enumerate(draw.sample, start=1):
        record = records[image_id]
        writer.writerow((number, image_id, spreadsheet_text(record.file), record.sha256, "", ""))
    return table.getvalue().encode("utf-8-sig")


def _read_results(name: str, data: bytes, draw: AuditDraw, records: Mapping[str, ImageRecord]) -> dict[str, str]:
    """What the table says of each image of the sample: GOOD or DEFECT."""
    sampled = set(draw.sample)
    found: dict[str, str] = {}
    unjudged: list[str] = []
    for number, row in enumerate(_rows(name, data), start=2):  # as a spreadsheet counts, the header being row 1
        image_id, result = row["image_id"], row["result"].strip().lower()
        if image_id not in sampled or row["sha256"] != records[image_id].sha256:
            raise UsageError(
                f"{name} row {number}: {_cut(image_id)} with this sha256 is not in sample {draw.draw} of this run; "
                f"fill in {sample_file(draw.draw)}"
            )
        where = f"row {number} ({records[image_id].file})"
        if image_id in found:
            raise UsageError(f"{name} {where}: {image_id} has a row already; leave one row for each image")
        if result not in ("", GOOD, DEFECT):
            raise UsageError(f"{name} {where}: expected {GOOD} or {DEFECT} as result, got {_cut(row['result'])}")
        if not result:
            unjudged.append(where)
        found[image_id] = result
    missing = [f"{image_id} ({records[image_id].file})" for image_id in draw.sample if image_id not in found]
    for what, images in (("have no row", missing), ("have no result yet", unjudged)):
        if images:
            raise UsageError(
                f"{name}: {len(images)} of {len(draw.sample)} images {what}: {', '.join(images[:_NAMED])}"
                f"{', ...' if len(images) > _NAMED else ''}. Every one must be judged {GOOD} or {DEFECT}"
            )
    return found


def _rows(name: str, data: bytes) -> list[dict[str, str]]:
    """The rows of a table by column; spreadsheets of some languages separate by semicolons."""
    try:
        text = data.decode("utf-8-sig")
        header = text.partition("\n")[0]
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in header else ",", restval="")
        rows = list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{name} cannot be read as CSV in UTF-8 ({error}); save it as that") from error
    columns = table.fieldnames or ()
    if not set(_NEEDED) <= set(columns):
        raise UsageError(f"{name}: expected the columns {','.join(COLUMNS)}, got {_cut(','.join(columns))}")
    return rows


def _cut(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
