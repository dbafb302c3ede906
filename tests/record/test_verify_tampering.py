from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_factories import (
    first_problem,
    forge,
    read_members,
    render,
    tree,
)

from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.record.verify import Verification, verify_run


def edit_lines(run_dir: Path, edit: Callable[[list[bytes]], object]) -> None:
    ledger = run_dir / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    edit(lines)
    ledger.write_bytes(b"".join(lines))


def test_any_flipped_byte_of_the_ledger_is_pinned_to_its_line(finished: Path) -> None:
    ledger = finished / "ledger.jsonl"
    whole = ledger.read_bytes()
    rng = random.Random(11)
    last = whole.rindex(b"\n", 0, -1) + 1
    places = [*rng.sample(range(last), 150), *range(last, len(whole))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        ledger.write_bytes(damaged)
        number = whole[:place].count(b"\n") + 1
        assert first_problem(finished).startswith(f"ledger.jsonl line {number}: "), place


def test_any_flipped_byte_of_a_file_is_found(finished: Path) -> None:
    rng = random.Random(12)
    names = [name for name in tree(finished) if name != "ledger.jsonl"]
    assert len(names) == 9
    for name in names * 12:
        whole = (finished / name).read_bytes()
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        (finished / name).write_bytes(damaged)
        assert first_problem(finished).startswith(f"{name}: altered")
        (finished / name).write_bytes(whole)
    assert verify_run(finished).ok


def delete_line(lines: list[bytes], rng: random.Random) -> None:
    del lines[rng.randrange(len(lines))]


def swap_lines(lines: list[bytes], rng: random.Random) -> None:
    i, j = rng.sample(range(len(lines)), 2)
    lines[i], lines[j] = lines[j], lines[i]


def duplicate_line(lines: list[bytes], rng: random.Random) -> None:
    i = rng.randrange(len(lines))
    lines.insert(rng.randrange(len(lines) + 1), lines[i])


def cut_tail(lines: list[bytes], rng: random.Random) -> None:
    del lines[rng.randrange(len(lines)) :]


def cut_within(lines: list[bytes], rng: random.Random) -> None:
    i = rng.randrange(len(lines))
    lines[i:] = [lines[i][: rng.randrange(len(lines[i]))]]


def insert_bytes(lines: list[bytes], rng: random.Random) -> None:
    i = rng.randrange(len(lines))
    at = rng.randrange(len(lines[i]) + 1)
    lines[i] = lines[i][:at] + rng.choice([b" ", b"\n", b"\r", b"\x00", b"0", b"\xef\xbb\xbf"]) + lines[i][at:]


def append_junk(lines: list[bytes], rng: random.Random) -> None:
    lines.append(rng.choice([b"\n", b"{}\n", b"null\n", b"{", lines[0], b"\xff\n", b"[" * 100_000 + b"\n"]))


TAMPERING = (delete_line, swap_lines, duplicate_line, cut_tail, cut_within, insert_bytes, append_junk)


@pytest.mark.parametrize("tamper", TAMPERING)
def test_tampering_with_lines_is_found(finished: Path, tamper: Callable[..., None]) -> None:
    whole = (finished / "ledger.jsonl").read_bytes()
    for seed in range(40):
        edit_lines(finished, lambda lines, seed=seed: tamper(lines, random.Random(seed)))
        assert (finished / "ledger.jsonl").read_bytes() != whole
        assert not verify_run(finished).ok, seed
        (finished / "ledger.jsonl").write_bytes(whole)
    assert verify_run(finished).ok


def test_what_is_said_of_lines_names_the_first_one_that_is_wrong(finished: Path) -> None:
    whole = (finished / "ledger.jsonl").read_bytes()
    for number in range(1, 8):
        edit_lines(finished, lambda lines, n=number: lines.__delitem__(n - 1))
        expected = f"ledger.jsonl line {number}: lines were removed, inserted or moved: seq does not count on"
        assert first_problem(finished) == f"{expected} (expected {number}, got {number + 1})"
        (finished / "ledger.jsonl").write_bytes(whole)


def test_a_resealed_line_is_found_unless_all_that_follow_are(finished: Path) -> None:
    original = (finished / "ledger.jsonl").read_bytes()
    n_lines = original.count(b"\n")
    for number in range(1, n_lines):
        members = read_members(finished)
        members[number - 1]["time"] = "2025-06-15T15:06:41Z"
        forge(finished, members)
        kept = original.splitlines(keepends=True)
        edit_lines(finished, lambda lines, n=number, kept=kept: lines.__setitem__(slice(n, None), kept[n:]))
        problem = first_problem(finished)
        assert problem.startswith(f"ledger.jsonl line {number}: the line was replaced: line {number + 1}")
        (finished / "ledger.jsonl").write_bytes(original)


@pytest.mark.parametrize(("old", "new"), [(b'"alpha":0.05', b'"alpha":5e-2'), (b'{"body":', b'{ "body":')])
def test_a_line_in_another_notation_is_found(finished: Path, old: bytes, new: bytes) -> None:
    """Its trailer and the chain are right: only the bytes are not what the ledger writes."""

    def rewrite(lines: list[bytes]) -> None:
        prev = "0" * 64
        for i, line in enumerate(lines):
            changed = line.replace(old, new, 1) if i == 2 else line
            at = changed.index(b',"prev":"') + len(b',"prev":"')
            bare = changed[:at] + prev.encode() + changed[at + 64 : changed.rindex(b',"trailer"')] + b"}"
            lines[i] = bare[:-1] + b',"trailer":"' + hashlib.sha256(bare).hexdigest().encode() + b'"}\n'
            prev = hashlib.sha256(lines[i][:-1]).hexdigest()

    edit_lines(finished, rewrite)
    assert first_problem(finished).startswith("ledger.jsonl line 3: not in canonical form")


@pytest.mark.parametrize("n_kept", range(1, 8))
def test_a_tail_cut_off_behind_a_whole_line_is_found(finished: Path, n_kept: int) -> None:
    n_lines = len(read_members(finished))
    assert n_lines == 8
    edit_lines(finished, lambda lines: lines.__delitem__(slice(n_kept, None)))
    problem = first_problem(finished)
    if n_kept == 7:
        assert problem == "report.pdf: no ledger line accounts for this file"
    else:
        n_missing = min(4, 6 - n_kept)
        assert problem.startswith(f"ledger.jsonl line {n_kept + 1}: run_finished is missing, {n_missing} of 4 files")


def test_a_forged_ledger_is_found_by_the_reports_or_by_a_head_kept_elsewhere(finished: Path) -> None:
    true_head = read_report(finished).provenance.head_hash
    members = read_members(finished)
    assert members[2]["body"]["verdict"]["decision"] == "NOT_FLAGGED"
    members[2]["body"]["verdict"]["score"] = 0.125
    forge(finished, members)

    # Only the ledger rewritten: reports still carry the true head
    problems = [str(problem) for problem in verify_run(finished).problems]
    starts = (
        "report.json: made",
        "report.pdf: the attached ledger",
        "report.pdf, attached report.json: made",
        "report.pdf: the head hash printed in it",
    )
    assert len(problems) == 4 and all(map(str.startswith, problems, starts))

    # Everything rewritten: nothing here contradicts itself any more
    forge(finished, members[:-1])
    files = render(finished)
    with Run.reopen(finished) as run:
        run.note_rendered(files)
    assert verify_run(finished).ok
    assert first_problem(finished, expected_head=true_head).startswith("ledger.jsonl line 7: the results are not")


def replaced(value: Any, rng: random.Random) -> Any:
    """Put something unexpected at a random place of a JSON value."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: replaced(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], replaced(value[at], rng), *value[at + 1 :]]
    return rng.choice([None, True, -1, 1e300, "", "\u202e", [], {}, [[]], {"": {}}, "NaN", "../x", [None] * 3])


def test_nothing_that_a_forger_writes_makes_verification_raise(finished: Path) -> None:
    rng = random.Random(13)
    members = read_members(finished)
    n_found = 0
    for _ in range(250):
        number = rng.randrange(len(members))
        forged = [*members[:number], dict(members[number]), *members[number + 1 :]]
        forged[number]["body"] = replaced(members[number]["body"], rng)
        if rng.random() < 0.1:
            forged[number]["event"] = rng.choice(["image", "run_started", "fallback", "x\x1b"])
        forge(finished, forged)
        verification = verify_run(finished)
        assert isinstance(verification, Verification)
        assert all(str(problem).isprintable() for problem in verification.problems)
        n_found += not verification.ok
    assert n_found >= 230


def test_random_bytes_do_not_make_verification_raise(tmp_path: Path) -> None:
    rng = random.Random(14)
    for _ in range(100):
        (tmp_path / "ledger.jsonl").write_bytes(rng.randbytes(rng.randrange(300)) + rng.choice([b"", b"\n"]))
        assert not verify_run(tmp_path).ok
