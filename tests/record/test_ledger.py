from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from explainvad.errors import ConfigError, IntegrityError, RunConflictError, StorageError
from explainvad.record.ledger import Ledger, utc_now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def write_three(path: Path) -> list[str]:
    with Ledger.open(path) as ledger:
        return [ledger.append("image", {"n": n, "x": 0.1 * n, "name": "ü \u2028 ."}).sha256 for n in range(3)]


def test_every_line_vouches_for_the_one_before(path: Path) -> None:
    digests = write_three(path)
    prev = "0" * 64
    for seq, raw in enumerate(path.read_bytes().splitlines(), start=1):
        members = json.loads(raw)
        assert members["seq"] == seq
        assert members["prev"] == prev
        assert members["time"] == "2025-06-15T15:06:40Z"
        trailer = members.pop("trailer")
        bare = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(bare).hexdigest() == trailer
        prev = hashlib.sha256(raw).hexdigest()
        assert digests[seq - 1] == prev
    assert seq == 3


def test_a_reopened_ledger_goes_on_where_it_ended(path: Path, tmp_path: Path) -> None:
    *_, head = write_three(path)
    with Ledger.open(path) as ledger:
        assert ledger.head == head and not ledger.torn
        ledger.append("image", {"n": 3})
        assert [line.number for line in ledger.events()] == [1, 2, 3, 4]
        assert [line.body["n"] for line in ledger.events()] == [0, 1, 2, 3]


def test_numbers_come_back_as_they_were(path: Path) -> None:
    numbers = [1e20, -1e300, 5e-324, 0.1 + 0.2, 2**53 - 1, 1.0, -0.0, 123456789012345680000.0]
    with Ledger.open(path) as ledger:
        ledger.append("image", {"numbers": numbers})
        assert [line.body["numbers"] for line in ledger.events()] == [numbers]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), np.float32(1), np.int64(1), 2**60, "\ud800", {1: 2}, b"x"]
)
def test_what_is_not_json_cannot_be_written(path: Path, value: object) -> None:
    write_three(path)
    before = path.read_bytes()
    with Ledger.open(path) as ledger:
        with pytest.raises(ValueError):
            ledger.append("image", {"value": value})
        assert path.read_bytes() == before


def test_a_line_torn_at_any_byte_is_dropped_and_written_again(path: Path) -> None:
    write_three(path)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        with Ledger.open(path) as ledger:
            assert ledger.torn == (cut > start)
            assert len(list(ledger.events())) == 2
            assert path.stat().st_size == cut  # opening changes nothing
            ledger.append("image", {"n": 2, "x": 0.2, "name": "ü \u2028 ."})
            assert not ledger.torn
        assert path.read_bytes() == whole


def test_a_first_line_torn_at_any_byte_is_dropped(path: Path) -> None:
    write_three(path)
    first = path.read_bytes().splitlines()[0]
    for cut in range(len(first) + 1):
        path.write_bytes(first[:cut])
        with Ledger.open(path) as ledger:
            assert list(ledger.events()) == []


def test_a_last_line_of_lost_pages_is_torn(path: Path) -> None:
    write_three(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"body":' + bytes(100) + b"\n")
    with Ledger.open(path) as ledger:
        assert ledger.torn
        ledger.mend()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("number", [1, 2])
def test_only_the_last_line_may_be_torn(path: Path, number: int) -> None:
    write_three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1][:20] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(IntegrityError, match=rf"^ledger.jsonl line {number}: not one JSON object"):
        Ledger.open(path)


@pytest.mark.parametrize("text", ["my notes", '{"a": 1}\n', "\n", '{"body":[]}'])
def test_a_file_that_is_no_ledger_is_left_alone(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises((RunConflictError, IntegrityError)):
        Ledger.open(path)
    assert path.read_text() == text


def test_a_link_is_not_written_through(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("")
    path.symlink_to(target)
    with pytest.raises(RunConflictError, match="not a regular file"):
        Ledger.open(path)


def test_one_writer_at_a_time(path: Path) -> None:
    with Ledger.open(path), pytest.raises(RunConflictError, match="another process is writing"):
        Ledger.open(path)
    script = f"from explainvad.record.ledger import Ledger; from pathlib import Path; Ledger.open(Path({str(path)!r}))"
    with Ledger.open(path):
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "RunConflictError" in other.stderr
    Ledger.open(path).close()


@pytest.mark.parametrize("failing", ["write", "fsync"])
@pytest.mark.parametrize("repair", [True, False])
def test_a_failed_append_leaves_nothing_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, repair: bool
) -> None:
    write_three(path)
    before = path.read_bytes()
    real = {name: getattr(os, name) for name in ("write", "fsync", "ftruncate")}
    written = 0

    def full_disk(descriptor: int, data: bytes = b"") -> int:
        nonlocal written
        if failing == "write" and not written:
            written = real["write"](descriptor, data[:30])
            return written
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger.open(path) as ledger:
        monkeypatch.setattr(os, failing, full_disk)
        if not repair:
            monkeypatch.setattr(os, "ftruncate", full_disk)
        with pytest.raises(StorageError, match=r"No space left on device.*resumes the run"):
            ledger.append("image", {"n": 3})
        if repair:
            assert path.read_bytes() == before
        else:
            assert ledger.torn and len(path.read_bytes()) > len(before)
        for name, function in real.items():
            monkeypatch.setattr(os, name, function)
        ledger.append("image", {"n": 3})
        assert path.read_bytes().startswith(before)
        assert [line.body["n"] for line in ledger.events()] == [0, 1, 2, 3]


FILL = """
import resource, sys
from pathlib import Path
from explainvad.errors import StorageError
from explainvad.record.ledger import Ledger
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
ledger = Ledger.open(Path(sys.argv[1]))
try:
    for n in range(100):
        ledger.append("image", {"n": n, "text": "x" * 300})
except StorageError as error:
    print(n, error)
"""


def test_a_file_size_limit_ends_with_whole_lines(path: Path) -> None:
    outcome = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True)
    n_written = int(outcome.stdout.split()[0])
    assert n_written > 3 and "File too large" in outcome.stdout
    with Ledger.open(path) as ledger:
        assert not ledger.torn
        assert [line.body["n"] for line in ledger.events()] == list(range(n_written))


def test_a_ledger_deleted_while_open_is_noticed(path: Path) -> None:
    with Ledger.open(path) as ledger:
        path.unlink()
        with pytest.raises(IntegrityError, match="deleted or changed"):
            ledger.append("image", {})


def test_a_ledger_changed_while_open_is_noticed(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.append("image", {})
        path.write_bytes(path.read_bytes() + b"more\n")
        with pytest.raises(IntegrityError, match="deleted or changed"):
            ledger.append("image", {})


def test_the_clock_is_used_when_no_epoch_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", utc_now())
    assert utc_now() > "2025-06-15T15:06:40Z"


@pytest.mark.parametrize("epoch", ["yesterday", "", "1e9", "9" * 30])
def test_an_epoch_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, epoch: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH"):
        utc_now()
