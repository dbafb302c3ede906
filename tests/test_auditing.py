"""The audit of a run: a sample that nobody chooses, a sheet for a person, and a bound from what comes back."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from run_factories import continue_run, forge, make_start, passed_run, read_members, tree

from explainvad.auditing import COLUMNS, draw_audit, record_audit
from explainvad.errors import IntegrityError, UsageError
from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.record.verify import verify_run
from explainvad.reporting import load_report
from explainvad.types import LotInfo
from explainvad.uncertainty.audit import draw_sample
from explainvad.uncertainty.lot_bounds import audit_sample_size, audit_upper_bound

N_PASSED = 40
LEVELS = (0.9, 0.1)  # confidence and limit: 14 of 40 are looked at


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run: img-00001 rejected, img-00002 to img-00041 passed."""
    return passed_run(tmp_path / "run", N_PASSED)


@pytest.fixture
def sheet(run_dir: Path) -> Path:
    """The sheet of a first draw."""
    return draw_audit(run_dir, *LEVELS)[1]


Rows = list[dict[str, str]]


def read(sheet: Path) -> Rows:
    return list(csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig"), newline="")))


def fill(sheet: Path, *defective: int, edit: Callable[[Rows], object] = lambda rows: None) -> Path:
    """Fill the sheet in: the rows with these indices are defective, the others good."""
    rows = read(sheet)
    for index, row in enumerate(rows):
        row["result"] = "defect" if index in defective else "good"
    edit(rows)
    with sheet.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return sheet


def test_the_sample_follows_from_the_results_head(run_dir: Path) -> None:
    draw, path = draw_audit(run_dir, *LEVELS)
    head = read_report(run_dir).provenance.head_hash
    size = audit_sample_size(N_PASSED, *LEVELS)
    assert (draw.draw, draw.confidence, draw.limit, draw.population) == (1, *LEVELS, N_PASSED)
    assert draw.sample == tuple(f"img-{i + 2:05d}" for i in draw_sample(head, 1, N_PASSED, size))
    assert path == run_dir / "audit" / "sample-1.csv"
    line = read_members(run_dir)[-1]
    assert (line["event"], line["body"]["sample"], line["body"]["population"]) == (
        "audit_drawn",
        list(draw.sample),
        N_PASSED,
    )
    assert verify_run(run_dir).ok


def test_the_sheet_names_every_sampled_image_and_leaves_the_result_to_the_person(run_dir: Path) -> None:
    draw, path = draw_audit(run_dir, *LEVELS)
    records = {record.image_id: record for record in read_report(run_dir).records}
    assert path.read_bytes().startswith(b"\xef\xbb\xbf" + ",".join(COLUMNS).encode() + b"\n")
    rows = read(path)
    assert [row["image_id"] for row in rows] == list(draw.sample)
    for number, row in enumerate(rows, start=1):
        record = records[row["image_id"]]
        assert [*row.values()] == [str(number), record.image_id, record.file, record.sha256, "", ""]


@pytest.mark.parametrize(
    ("file", "cell"), [("=1+1.png", "'=1+1.png"), ("@x", "'@x"), ("a\rb", "a\\rb"), ('a,"b', 'a,"b'), ("ü", "ü")]
)
def test_a_spreadsheet_runs_no_file_name_as_a_formula(tmp_path: Path, file: str, cell: str) -> None:
    run_dir = passed_run(tmp_path, 1, files=(("img-00001", "x"), ("img-00002", file)))
    assert [row["file"] for row in read(draw_audit(run_dir)[1])] == [cell]


def test_without_levels_they_are_95_and_1_percent(run_dir: Path) -> None:
    draw, _ = draw_audit(run_dir)
    assert (draw.confidence, draw.limit) == (0.95, 0.01)
    assert len(draw.sample) == 38  # one defective image of 40 is above 1 %, and missed with probability 2/40


def test_an_open_draw_is_drawn_again_as_it_is(run_dir: Path, sheet: Path) -> None:
    ledger, empty = (run_dir / "ledger.jsonl").read_bytes(), sheet.read_bytes()
    sheet.write_bytes(b"half filled in")
    for levels in ((None, None), LEVELS, (0.9, None)):
        draw, path = draw_audit(run_dir, *levels, again=True)
        assert (draw.draw, path.read_bytes()) == (1, b"half filled in")
    sheet.unlink()
    assert draw_audit(run_dir)[1].read_bytes() == empty
    assert (run_dir / "ledger.jsonl").read_bytes() == ledger


@pytest.mark.parametrize("levels", [(0.95, None), (None, 0.05)])
def test_an_open_draw_keeps_its_levels(run_dir: Path, sheet: Path, levels: tuple[float | None, float | None]) -> None:
    with pytest.raises(UsageError, match=r"draw 1 \(confidence 0.9, limit 0.1\) has no results yet"):
        draw_audit(run_dir, *levels)


def test_results_are_recorded_with_their_bound(run_dir: Path, sheet: Path) -> None:
    names = [row["image_id"] for row in read(sheet)]
    result = record_audit(run_dir, fill(sheet, 3, 8), " A. Nobody ")
    assert result.defective == (names[3], names[8])
    assert result.upper_count == audit_upper_bound(N_PASSED, len(names), 2, 0.9) > 2
    assert (result.sample, result.n_population, result.n_draws) == (tuple(names), N_PASSED, 1)
    assert (result.auditor, result.confidence, result.limit) == ("A. Nobody", *LEVELS)
    recorded = read_report(run_dir).audit
    assert recorded is not None and recorded.defective == result.defective
    copy = (run_dir / "audit" / "results-1.csv").read_bytes()
    assert copy == sheet.read_bytes()
    assert read_members(run_dir)[-1]["body"]["sha256"] == hashlib.sha256(copy).hexdigest()
    assert verify_run(run_dir).ok


@pytest.mark.parametrize("levels", [(0.9, 0.1), (0.95, 0.01), (0.5, 0.3), (0.99, 0.2)])
def test_a_sample_without_defects_keeps_the_limit_and_one_defect_breaks_it(
    tmp_path: Path, levels: tuple[float, float]
) -> None:
    for name, defective in (("good", ()), ("bad", (0,))):
        run_dir = passed_run(tmp_path / name, N_PASSED)
        _, path = draw_audit(run_dir, *levels)
        result = record_audit(run_dir, fill(path, *defective), "A. Nobody")
        assert result.reached is (defective == ())


def as_spreadsheet(text: str) -> bytes:
    return b"\xef\xbb\xbf" + text.replace(",", ";").replace("\n", "\r\n").encode()


def shuffled(text: str) -> bytes:
    header, *rows = text.splitlines()
    return "\n".join([header, *rows[::-1]]).encode()


def cut_down(text: str) -> bytes:
    rows = csv.DictReader(io.StringIO(text))
    needed = ["image_id,sha256,result", *(f"{row['image_id']},{row['sha256']},{row['result']}" for row in rows)]
    return "\n".join(needed).encode("utf-8-sig")


@pytest.mark.parametrize(
    "saved", [str.encode, as_spreadsheet, shuffled, cut_down, lambda text: text.replace("defect", " DEFECT ").encode()]
)
def test_the_table_may_come_back_as_a_spreadsheet_saves_it(
    run_dir: Path, sheet: Path, tmp_path: Path, saved: Callable[[str], bytes]
) -> None:
    expected = read(sheet)[5]["image_id"]
    (tmp_path / "back.csv").write_bytes(saved(fill(sheet, 5).read_text("utf-8")))
    assert record_audit(run_dir, tmp_path / "back.csv", "A. Nobody").defective == (expected,)


def blank(rows: Rows, n: int) -> None:
    for row in rows[:n]:
        row["result"] = ""


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[0].update(result="ok"), r"row 2 \(tray/part \d+ ü.png\): expected good or defect .* 'ok'"),
        (lambda rows: blank(rows, 1), r"1 of 14 images have no result yet: row 2 \(tray/part \d+ ü.png\)\. "),
        (
            lambda rows: blank(rows, 3),
            r"3 of 14 images have no result yet: row 2 \(.*\), row 3 \(.*\), row 4 \(.*\)\. ",
        ),
        (lambda rows: blank(rows, 5), r"5 of 14 images have no result yet: row 2 \(.*\), row 3 \(.*\), row 4 .*, \.\."),
        (lambda rows: rows.pop(1), r"1 of 14 images have no row: img-\d+ \(tray/part \d+ ü.png\)\. "),
        (lambda rows: rows.append(rows[4]), r"row 16 \(.*\): img-\d+ has a row already"),
        (lambda rows: rows[0].update(image_id="img-00001"), "row 2: 'img-00001' .* is not in sample 1 of this run"),
        (lambda rows: rows[0].update(image_id="=" * 999), r"row 2: '={80}\.\.\.' with"),
        (lambda rows: rows[2].update(sha256="0" * 64), r"row 4: 'img-\d+' with this sha256 is not in sample 1"),
    ],
)
def test_a_table_that_is_not_the_filled_in_sheet_is_refused(
    run_dir: Path, sheet: Path, edit: Callable[[Rows], object], message: str
) -> None:
    fill(sheet, edit=edit)
    before = tree(run_dir)
    with pytest.raises(UsageError, match=f"^sample-1.csv:? {message}"):
        record_audit(run_dir, sheet, "A. Nobody")
    assert tree(run_dir) == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected the columns number,image_id,file,sha256,result,comment, got ''"),
        (b"image_id,result\nimg-00002,good\n", "got 'image_id,result'"),
        (b"\x89PNG\r\n\x1a\n\xff", "cannot be read as CSV in UTF-8"),
        (b'image_id,sha256,result\n"' + b"a" * 200_000, "cannot be read as CSV in UTF-8"),
        (b"image_id,sha256,result\nimg-00002\n", "row 2: 'img-00002' with this sha256 is not in sample 1"),
    ],
)
def test_what_is_no_table_is_refused(run_dir: Path, sheet: Path, data: bytes, message: str) -> None:
    (run_dir.parent / "other.csv").write_bytes(data)
    with pytest.raises(UsageError, match=f"^other.csv:? .*{message}"):
        record_audit(run_dir, run_dir.parent / "other.csv", "A. Nobody")


def test_the_sheet_of_another_run_is_refused(run_dir: Path, tmp_path: Path) -> None:
    """Image ids are the same in every lot: the content's hash tells them apart."""
    other = passed_run(tmp_path / "other", N_PASSED, lot=LotInfo("lot43"))
    sheets = [draw_audit(folder, 0.99)[1] for folder in (run_dir, other)]
    assert len(read(sheets[0])) == N_PASSED
    assert [row["image_id"] for row in read(sheets[0])] == [row["image_id"] for row in read(sheets[1])]
    with pytest.raises(UsageError, match=r"is not in sample 1 of this run; fill in audit/sample-1\.csv"):
        record_audit(run_dir, fill(sheets[1]), "A. Nobody")


def test_a_second_audit_must_be_asked_for_and_is_counted(run_dir: Path, sheet: Path) -> None:
    first = record_audit(run_dir, fill(sheet, 0), "A. Nobody")
    with pytest.raises(UsageError, match=r"was audited already \(draw 1\).*--again draws a further sample"):
        draw_audit(run_dir, *LEVELS)
    with pytest.raises(UsageError, match=r"no draw of .* waits for results"):
        record_audit(run_dir, sheet, "A. Nobody")
    draw, path = draw_audit(run_dir, *LEVELS, again=True)
    assert (draw.draw, path.name) == (2, "sample-2.csv")
    assert len(draw.sample) == len(first.sample) and draw.sample != first.sample
    with pytest.raises(UsageError, match=r"is not in sample 2|has no row"):
        record_audit(run_dir, sheet, "A. Nobody")
    assert record_audit(run_dir, fill(path), "B. Nobody").n_draws == 2
    audit = read_report(run_dir).audit
    assert audit is not None and (audit.n_draws, audit.auditor, audit.defective) == (2, "B. Nobody", ())
    assert verify_run(run_dir).ok


def test_the_audit_is_in_the_rendered_report(run_dir: Path, sheet: Path) -> None:
    load_report(run_dir).render(formats=["json", "csv"])
    assert json.loads((run_dir / "report.json").read_bytes())["audit"] is None
    result = record_audit(run_dir, fill(sheet, 2), "A. Nobody")
    assert verify_run(run_dir).ok
    load_report(run_dir).render(formats=["json", "csv"])
    written = json.loads((run_dir / "report.json").read_bytes())["audit"]
    assert (written["defective"], written["upper_count"]) == (list(result.defective), result.upper_count)
    assert verify_run(run_dir).ok


def test_a_sample_that_somebody_chose_is_refused(run_dir: Path, sheet: Path) -> None:
    fill(sheet)
    members = read_members(run_dir)
    sample = members[-1]["body"]["sample"]
    other = next(i for i in (f"img-{n:05d}" for n in range(2, N_PASSED + 2)) if i not in sample)
    members[-1]["body"]["sample"] = sorted([other, *sample[1:]])
    forge(run_dir, members)
    for action in (lambda: draw_audit(run_dir), lambda: record_audit(run_dir, sheet, "A. Nobody")):
        with pytest.raises(IntegrityError, match="the sample of draw 1 in the ledger is not the one"):
            action()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 95.0, float("nan")])
def test_levels_are_shares(run_dir: Path, value: float) -> None:
    before = tree(run_dir)
    with pytest.raises(UsageError, match=rf"--confidence expects a share between 0 and 1.*got {value:g}"):
        draw_audit(run_dir, confidence=value)
    with pytest.raises(UsageError, match=rf"--limit expects a share between 0 and 1.*got {value:g}"):
        draw_audit(run_dir, limit=value)
    assert tree(run_dir) == before


def test_only_a_finished_run_in_which_something_passed_is_audited(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image of this run passed"):
        draw_audit(passed_run(tmp_path / "none", 0))
    start = make_start()
    with Run.open(tmp_path / "unfinished", start) as run:
        continue_run(run, start, until=1)
    with pytest.raises(UsageError, match="3 of 4 files have no result yet; give the same analyze command again"):
        draw_audit(tmp_path / "unfinished")
    with pytest.raises(UsageError, match="holds no run"):
        record_audit(tmp_path, tmp_path / "sample-1.csv", "A. Nobody")


def test_results_need_a_file_and_a_name(run_dir: Path, sheet: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        record_audit(run_dir, run_dir / "nowhere.csv", "A. Nobody")
    for name in ("", "  ", "A.\nNobody", "A. Nobody \ud800"):
        with pytest.raises(UsageError, match="--auditor expects the name of the person who looked"):
            record_audit(run_dir, fill(sheet), name)
