"""Audits in the record: which lines may follow which, what is durable, and what verification finds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_factories import (
    continue_run,
    first_problem,
    forge,
    make_record,
    make_start,
    passed_run,
    read_members,
    render,
    tree,
    write_pdf,
)

from explainvad.errors import IntegrityError, StorageError, UsageError
from explainvad.record.audits import AuditDraw
from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.record.verify import verify_run
from explainvad.types import AuditResult

Members = list[dict[str, Any]]

DRAW = AuditDraw(1, 0.95, 0.25, 5, ("img-00002", "img-00004", "img-00006"))
RESULT = AuditResult(5, DRAW.sample, ("img-00004",), 0.95, 0.25, 2, "A. Nobody", 1)
TABLE = b"image_id,result\n"


def audit(run_dir: Path, number: int = 1) -> None:
    with Run.reopen(run_dir) as run:
        run.add_draw(replace(DRAW, draw=number))
        run.add_audit(replace(RESULT, n_draws=number), TABLE)


def note(run_dir: Path, *names: str) -> None:
    with Run.reopen(run_dir) as run:
        run.note_rendered([run_dir / name for name in names])


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run: img-00001 rejected, five that passed."""
    return passed_run(tmp_path / "run", 5)


@pytest.fixture
def audited(run_dir: Path) -> Path:
    """run_started, 6 images, run_finished, report_rendered, audit_drawn, audit_recorded."""
    render(run_dir)
    note(run_dir, "report.pdf", "report.json", "results.csv")
    audit(run_dir)
    assert len(read_members(run_dir)) == 11
    return run_dir


def test_an_audit_is_part_of_the_report(run_dir: Path) -> None:
    head = read_report(run_dir).provenance.head_hash
    assert read_report(run_dir).audit is None
    with Run.reopen(run_dir) as run:
        assert [record.image_id for record in run.passed] == [f"img-0000{i}" for i in range(2, 7)]
        assert run.audits.open_draw is None and run.head == head
        run.add_draw(DRAW)
        assert run.audits.open_draw is not None and run.audits.open_draw.sample == DRAW.sample
        assert read_report(run_dir).audit is None
        run.add_audit(RESULT, TABLE)
        assert run.audits.open_draw is None
    report = read_report(run_dir)
    assert report.audit is not None
    for name in RESULT.__slots__:
        assert getattr(report.audit, name) == getattr(RESULT, name)
    assert (report.provenance.head_hash, report.provenance.n_ledger_lines) == (head, 8)
    assert (run_dir / "audit" / "results-1.csv").read_bytes() == TABLE
    assert verify_run(run_dir).ok
    audit(run_dir, 2)
    latest = read_report(run_dir).audit
    assert latest is not None and latest.n_draws == 2


def test_what_passed_comes_in_the_order_of_the_lot(tmp_path: Path) -> None:
    start = make_start(8)
    with Run.open(tmp_path, start) as run:
        for index in reversed(range(8)):
            run.add(make_record(start, index), {})
        assert [record.image_id for record in run.passed] == ["img-00001", "img-00005"]


def test_an_audited_run_is_opened_and_resumed_unchanged(run_dir: Path) -> None:
    with Run.reopen(run_dir) as run:
        run.add_draw(DRAW)
    start = make_start(6)
    for _ in range(2):
        before = tree(run_dir)
        with (run_dir / "ledger.jsonl").open("ab") as ledger:
            ledger.write(b'{"body":{"auditor":"A. No')
        assert len(read_report(run_dir).records) == 6
        with Run.open(run_dir, start) as run:
            assert run.finished and len(run.done) == 6
        assert tree(run_dir) == before
        with Run.reopen(run_dir) as run:
            if run.audits.open_draw:
                run.add_audit(RESULT, TABLE)
    assert verify_run(run_dir).ok


def test_a_table_is_durable_before_its_line(run_dir: Path, synced: list[str]) -> None:
    with Run.reopen(run_dir) as run:
        synced.clear()
        run.add_draw(DRAW)
        assert synced == ["ledger.jsonl"]
        run.add_audit(RESULT, TABLE)
    assert synced == ["ledger.jsonl", "run", ".partial", "audit", "ledger.jsonl"]


def test_a_full_disk_leaves_the_draw_open(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Run.reopen(run_dir) as run:
        run.add_draw(DRAW)
        before = tree(run_dir)
        with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
            patch.setattr(os, "write", full_disk)
            run.add_audit(RESULT, TABLE)
        assert tree(run_dir) == before
        run.add_audit(RESULT, TABLE)
    assert verify_run(run_dir).ok


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draw": 2}, "draw must be 1, got 2"),
        ({"population": 6}, "population must be 5, got 6"),
        ({"sample": ()}, "the sample must hold images that passed"),
        ({"sample": ("img-00001",)}, "the sample must hold images that passed"),  # the rejected one
        ({"sample": ("img-00004", "img-00002")}, "the sample must hold images that passed"),
        ({"sample": ("img-00002", "img-00002")}, "the sample must hold images that passed"),
    ],
)
def test_a_draw_must_be_of_what_passed(run_dir: Path, changes: dict[str, Any], message: str) -> None:
    before = tree(run_dir)
    with Run.reopen(run_dir) as run, pytest.raises(ValueError, match=message):
        run.add_draw(replace(DRAW, **changes))
    assert tree(run_dir) == before


@pytest.mark.parametrize("name", ["confidence", "limit"])
@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_levels_of_a_draw_lie_between_0_and_1(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must lie in \(0, 1\), got {value}"):
        replace(DRAW, **{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_draws": 2}, "not those of draw 1"),
        ({"n_population": 6}, "not those of draw 1"),
        ({"sample": DRAW.sample[:2]}, "not those of draw 1"),
        ({"confidence": 0.9}, "not those of draw 1"),
        ({"limit": 0.5}, "not those of draw 1"),
        ({"defective": ("img-00003",)}, "defective must hold images of the sample"),
        ({"defective": ("img-00004", "img-00002")}, "defective must hold images of the sample"),
        ({"upper_count": 0}, r"upper_count must lie in \[1, 3\], got 0"),
        ({"upper_count": 4}, r"upper_count must lie in \[1, 3\], got 4"),
        ({"auditor": " "}, "the auditor must have a name"),
    ],
)
def test_results_must_be_those_of_the_open_draw(run_dir: Path, changes: dict[str, Any], message: str) -> None:
    with Run.reopen(run_dir) as run:
        run.add_draw(DRAW)
        before = tree(run_dir)
        with pytest.raises(ValueError, match=message):
            run.add_audit(replace(RESULT, **changes), TABLE)
        assert tree(run_dir) == before
        for possible in (1, 3):
            run.audits.check_result(replace(RESULT, upper_count=possible))


def test_one_draw_is_answered_before_the_next(run_dir: Path) -> None:
    with Run.reopen(run_dir) as run:
        with pytest.raises(ValueError, match="no draw waits for results"):
            run.add_audit(RESULT, TABLE)
        run.add_draw(DRAW)
        with pytest.raises(ValueError, match="draw 1 has no results yet"):
            run.add_draw(replace(DRAW, draw=2))
        run.add_audit(RESULT, TABLE)
        with pytest.raises(ValueError, match="no draw waits for results"):
            run.add_audit(RESULT, TABLE)


def test_only_a_finished_run_is_audited(tmp_path: Path) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        continue_run(run, start, until=2)
        with pytest.raises(UsageError, match="finish the run before it is audited"):
            run.add_draw(replace(DRAW, population=1, sample=("img-00001",)))


def move(members: Members, old: int, new: int) -> None:
    members.insert(new - 1, members.pop(old - 1))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: move(m, 10, 5), "line 5: audit_drawn: out of place before run_finished"),
        (lambda m: move(m, 11, 5), "line 5: audit_recorded: out of place before run_finished"),
        (lambda m: move(m, 9, 11), None),
        (lambda m: move(m, 9, 10), None),
        (lambda m: move(m, 10, 11), "line 10: audit_recorded: no draw waits for results"),
        (lambda m: m.insert(10, m[9]), "line 11: audit_drawn: draw 1 has no results yet"),
        (lambda m: m.append(m[10]), "line 12: audit_recorded: no draw waits for results"),
        (lambda m: m.append(m[9]), "line 12: audit_drawn: draw must be 2, got 1"),
        (lambda m: m[9]["body"].update(confidence=1), "Value error, confidence must lie in (0, 1), got 1"),
        (lambda m: m[9]["body"].update(sample=[1]), "line 10: audit_drawn: sample.0: Input should be a valid string"),
        (lambda m: m[9]["body"].update(seed=1), "line 10: audit_drawn: unknown members"),
        (lambda m: m[9]["body"].pop("limit"), "line 10: audit_drawn: limit: "),
        (lambda m: m[10]["body"].update(upper_count=1.5), "line 11: audit_recorded: upper_count: Input should be"),
        (lambda m: m[10]["body"].update(upper_count=4), "line 11: audit_recorded: upper_count must lie in [1, 3]"),
        (lambda m: m[10]["body"].pop("sha256"), "line 11: audit_recorded: 'sha256'"),
        (lambda m: m[10]["body"].update(sha256=None), "line 11: audit_recorded: sha256: Input should be a valid"),
        (lambda m: m[10]["body"].update(file="x"), "line 11: audit_recorded: unknown members"),
    ],
)
def test_lines_of_audits_must_make_sense(audited: Path, edit: Callable[[Members], object], message: str | None) -> None:
    members = read_members(audited)
    edit(members)
    forge(audited, members)
    if message is None:
        assert read_report(audited).audit is not None and verify_run(audited).ok
    else:
        assert message in first_problem(audited)
        with pytest.raises(IntegrityError) as caught:
            read_report(audited)
        assert message in str(caught.value)


def test_a_report_from_before_the_audit_still_holds_and_is_told_from_a_later_one(audited: Path) -> None:
    verification = verify_run(audited)
    assert verification.problems == ()
    assert {line for line in verification.checked if "made from" in line or "audit" in line} == {
        "audit/results-1.csv: as taken in",
        "report.json: made from this record, before the latest audit",
        "report.pdf: made from this record, before the latest audit",
    }
    render(audited)
    note(audited, "report.pdf", "report.json")
    verification = verify_run(audited)
    assert verification.problems == ()
    assert {"report.json: made from this record", "report.pdf: made from this record"} < set(verification.checked)


@pytest.mark.parametrize("name", ["report.json", "report.pdf"])
def test_one_format_may_be_rendered_again_alone_after_the_audit(audited: Path, name: str) -> None:
    before = {other: (audited / other).read_bytes() for other in ("report.json", "report.pdf")}
    render(audited)
    for other in before.keys() - {name}:
        (audited / other).write_bytes(before[other])
    note(audited, name)
    assert verify_run(audited).problems == ()


def test_of_one_time_the_attached_report_is_the_one_beside(audited: Path) -> None:
    before = (audited / "report.json").read_bytes()
    render(audited)
    ledger = (audited / "ledger.jsonl").read_bytes()
    write_pdf(audited / "report.pdf", {"ledger.jsonl": ledger, "report.json": before})
    note(audited, "report.pdf", "report.json")
    assert first_problem(audited) == "report.pdf: the attached report.json is not the one in the folder"


def test_an_altered_table_is_found(audited: Path) -> None:
    table = audited / "audit" / "results-1.csv"
    table.write_bytes(TABLE.replace(b"result", b"Result"))
    assert first_problem(audited).startswith("audit/results-1.csv: altered: its SHA-256 is not the recorded one")
    table.unlink()
    assert first_problem(audited) == "audit/results-1.csv: missing"
    (audited.parent / "copy.csv").write_bytes(TABLE)
    table.symlink_to(audited.parent / "copy.csv")
    assert "is a symbolic link; it was not followed" in first_problem(audited)


@pytest.mark.parametrize("name", ["results-2.csv", "sample-2.csv"])
def test_a_table_or_sheet_without_a_line_is_named(audited: Path, name: str) -> None:
    (audited / "audit" / name).write_bytes(TABLE)
    assert first_problem(audited) == f"audit/{name}: no ledger line accounts for this file"


def test_what_the_auditor_works_with_is_left_alone(audited: Path) -> None:
    for name in ("sample-1.csv", "sample-1.xlsx", ".~lock.sample-1.csv#", "sample-1 done.csv"):
        (audited / "audit" / name).write_bytes(b"of the auditor")
    assert verify_run(audited).ok


def test_a_linked_audit_folder_is_named_and_not_followed(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run_dir / "audit").symlink_to(tmp_path / "elsewhere")
    assert first_problem(run_dir) == "audit: no ledger line accounts for this file"
    with Run.reopen(run_dir) as run:
        run.add_draw(DRAW)
        with pytest.raises(IntegrityError, match="audit is a symbolic link"):
            run.add_audit(RESULT, TABLE)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_change_of_an_audit_line_is_pinned_to_it(audited: Path) -> None:
    ledger = audited / "ledger.jsonl"
    whole = ledger.read_bytes()
    lines = whole.splitlines(keepends=True)
    for number in (10, 11):
        start = len(b"".join(lines[: number - 1]))
        for place in range(start, start + len(lines[number - 1]), 5):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            ledger.write_bytes(damaged)
            assert first_problem(audited).startswith(f"ledger.jsonl line {number}: "), place


def test_audit_lines_that_were_cut_off_are_found_by_what_they_leave_behind(audited: Path) -> None:
    """As long as their files or a later rendering are there: a tail alone vouches for itself."""
    (audited / "audit" / "sample-1.csv").write_bytes(b"a sheet")
    lines = (audited / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    leftovers = {10: ["audit/results-1.csv"], 9: ["audit/results-1.csv", "audit/sample-1.csv"]}
    for n_kept, names in leftovers.items():
        (audited / "ledger.jsonl").write_bytes(b"".join(lines[:n_kept]))
        problems = [str(problem) for problem in verify_run(audited).problems]
        assert problems == [f"{name}: no ledger line accounts for this file" for name in names]

    # With a rendering behind the audit, its files may be gone too
    (audited / "ledger.jsonl").write_bytes(b"".join(lines))
    render(audited)
    note(audited, "report.pdf", "report.json")
    for name in ("results-1.csv", "sample-1.csv"):
        (audited / "audit" / name).unlink()
    (audited / "ledger.jsonl").write_bytes(b"".join(lines[:9]))
    assert first_problem(audited).startswith("report.json: altered")
