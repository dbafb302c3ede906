from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from explainvad.errors import IntegrityError, StorageError
from explainvad.record.history import FinishedLot, LotHistory, history_path, lot_content, read_history
from explainvad.record.ledger import Ledger

MODEL, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "part.evad.history.jsonl"


def lot(n: int, model_id: str = MODEL) -> FinishedLot:
    rng = np.random.default_rng(n)
    return FinishedLot(
        model_id=model_id,
        lot_id=f"Los {n} ü",
        content=lot_content([f"{n:064x}"]),
        head=f"{n:064x}",
        finished_at="2025-06-15T15:06:40Z",
        n_inspected=3,
        n_flagged=n % 2,
        images=("00ff", "01ff", "02ff"),
        cells=("", "camera 1", ""),
        values={"scores": tuple(rng.standard_normal(3).tolist()), "acquisition": (1.0, 1e-300, 1 / 3)},
        states={"scores": {"n_images": 3 * n, "log_stakes": rng.normal(size=4).tolist(), "alarm": None}},
    )


def write(path: Path, *lots: FinishedLot) -> bytes:
    for one in lots:
        with LotHistory.open(path, one.model_id) as history:
            history.append(one)
    return path.read_bytes()


def as_dicts(lots: tuple[FinishedLot, ...]) -> list[dict[str, object]]:
    return [asdict(one) for one in lots]


def ids(lots: tuple[FinishedLot, ...]) -> list[str]:
    return [one.lot_id for one in lots]


def test_lots_come_back_as_they_were(path: Path) -> None:
    lots = (lot(1), lot(2), lot(3))
    write(path, *lots)
    assert as_dicts(read_history(path, MODEL)) == as_dicts(lots)
    with LotHistory.open(path, MODEL) as history:
        assert as_dicts(history.before("new")) == as_dicts(lots)


def test_a_missing_file_holds_no_lots(path: Path) -> None:
    assert read_history(path, MODEL) == ()
    assert not path.exists()
    with LotHistory.open(path, MODEL) as history:
        assert history.before("new") == ()


def test_a_history_lies_beside_its_bundle_whatever_led_there(tmp_path: Path) -> None:
    (tmp_path / "part.evad").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "current.evad").symlink_to(tmp_path / "part.evad")
    for bundle in (tmp_path / "part.evad", tmp_path / "links" / "current.evad"):
        assert history_path(bundle) == tmp_path.resolve() / "part.evad.history.jsonl"


def test_content_is_the_files_in_their_order() -> None:
    assert lot_content(["a", "b"]) == lot_content(("a", "b"))
    different = {lot_content(x) for x in (["a", "b"], ["b", "a"], ["ab"], ["a", None, "b"], ["a", "b", "b"], [])}
    assert len(different) == 6


def test_each_model_has_lots_of_its_own(path: Path) -> None:
    write(path, lot(1), lot(2, OTHER), lot(3), lot(1, OTHER))
    assert ids(read_history(path, MODEL)) == ["Los 1 ü", "Los 3 ü"]
    assert ids(read_history(path, OTHER)) == ["Los 2 ü", "Los 1 ü"]
    with LotHistory.open(path, MODEL) as history, pytest.raises(ValueError, match=f"expected .* {MODEL}, got one of b"):
        history.append(lot(4, OTHER))


def test_a_lot_that_comes_again_is_judged_as_before_and_counted_once(path: Path) -> None:
    before = write(path, lot(1), lot(2), lot(3))
    with LotHistory.open(path, MODEL) as history:
        assert ids(history.before(lot(1).content)) == []
        assert ids(history.before(lot(2).content)) == ["Los 1 ü"]
        assert ids(history.before(lot(3).content)) == ["Los 1 ü", "Los 2 ü"]
        history.append(replace(lot(2), lot_id="the same files", n_flagged=3))
        assert path.read_bytes() == before
        history.append(lot(4))
        assert ids(history.before(lot(4).content)) == ["Los 1 ü", "Los 2 ü", "Los 3 ü"]
        history.append(lot(4))
    assert len(path.read_bytes().splitlines()) == 4


def test_a_line_torn_at_any_byte_is_dropped_and_written_again(path: Path) -> None:
    whole = write(path, lot(1), lot(2))
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert ids(read_history(path, MODEL)) == ["Los 1 ü"]
        assert path.stat().st_size == cut  # reading changes nothing
        assert write(path, lot(2)) == whole


def test_a_torn_first_line_is_dropped_and_written_again(path: Path) -> None:
    whole = write(path, lot(1))
    for cut in range(0, len(whole), 9):
        path.write_bytes(whole[:cut])
        assert read_history(path, MODEL) == ()
        assert write(path, lot(1)) == whole


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_edited_line_is_named(path: Path, number: int) -> None:
    lines = write(path, lot(1), lot(2), lot(3)).splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(b'"n_inspected":3', b'"n_inspected":4')
    path.write_bytes(b"".join(lines))
    expected = rf"part\.evad\.history\.jsonl line {number}: the line was altered.* move it away"
    with pytest.raises(IntegrityError, match=expected):
        read_history(path, MODEL)
    with pytest.raises(IntegrityError, match=expected):
        LotHistory.open(path, MODEL)
    with pytest.raises(IntegrityError, match=expected):
        read_history(path, OTHER)


def test_a_damaged_line_inside_is_named(path: Path) -> None:
    lines = write(path, lot(1), lot(2), lot(3)).splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:50] + b"\n" + lines[2])
    with pytest.raises(IntegrityError, match=r"part\.evad\.history\.jsonl line 2: not one JSON object"):
        read_history(path, MODEL)


@pytest.mark.parametrize(("kept", "named"), [((0, 2), 2), ((1, 2), 1), ((0, 2, 1), 2), ((0, 0, 1, 2), 2)])
def test_lines_cannot_be_removed_moved_or_repeated(path: Path, kept: tuple[int, ...], named: int) -> None:
    lines = write(path, lot(1), lot(2), lot(3)).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in kept))
    with pytest.raises(IntegrityError, match=f"line {named}: lines were removed, inserted or moved"):
        read_history(path, MODEL)


def test_a_line_replaced_by_a_sound_one_is_found(path: Path, tmp_path: Path) -> None:
    lines = write(path, lot(1), lot(2)).splitlines(keepends=True)
    forged = write(tmp_path / "forged.jsonl", replace(lot(1), n_inspected=5))
    path.write_bytes(forged + lines[1])
    with pytest.raises(IntegrityError, match="line 1: the line was replaced"):
        read_history(path, MODEL)


def test_a_sound_line_that_is_no_lot_is_named(path: Path) -> None:
    write(path, lot(1))
    with Ledger.open(path) as ledger:
        ledger.append("lot", {"model_id": MODEL, "lot_id": 7})
    with pytest.raises(IntegrityError, match=r"line 2: .*lot_id"):
        read_history(path, MODEL)
    assert read_history(path, OTHER) == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_refused(path: Path, value: float) -> None:
    before = write(path, lot(1))
    for bad in (
        replace(lot(2), values={"scores": (1.0, value)}),
        replace(lot(2), states={"scores": {"log_peak": value}}),
    ):
        with LotHistory.open(path, MODEL) as history:
            with pytest.raises(ValueError):
                history.append(bad)
            assert ids(history.before("new")) == ["Los 1 ü"]
    assert path.read_bytes() == before


def test_a_lot_is_durable_when_append_returns(path: Path, synced: list[str]) -> None:
    with LotHistory.open(path, MODEL) as history:
        assert synced[-1] == path.parent.name  # the name of the new file
        synced.clear()
        history.append(lot(1))
        assert synced == [path.name]


APPEND = """
import sys
from dataclasses import replace
from pathlib import Path
from explainvad.record.history import FinishedLot, LotHistory, lot_content
for n in range(25):
    with LotHistory.open(Path(sys.argv[1]), "m") as history:
        content = lot_content([f"{sys.argv[2]} {n}"])
        state = {"scores": {"n_images": len(history.before(content)) + 1}}
        one = ("0f",), ("",), {"scores": (1.0,)}
        history.append(FinishedLot("m", sys.argv[2], content, "h", "t", 1, 0, *one, state))
"""


def test_two_processes_take_turns(path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", APPEND, str(path), name]) for name in ("one", "two")]
    assert [worker.wait() for worker in workers] == [0, 0]
    lots = read_history(path, "m")
    assert sorted(ids(lots)) == ["one"] * 25 + ["two"] * 25
    # Every lot went on from the one before it, whoever wrote that
    assert [one.states["scores"]["n_images"] for one in lots] == list(range(1, 51))


def test_a_second_process_waits_for_the_first(path: Path) -> None:
    with LotHistory.open(path, "m") as history:
        worker = subprocess.Popen([sys.executable, "-c", APPEND, str(path), "two"])
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(timeout=2)
        history.append(replace(lot(1), model_id="m"))
        assert len(path.read_bytes().splitlines()) == 1
    assert worker.wait() == 0
    assert ids(read_history(path, "m")) == ["Los 1 ü"] + ["two"] * 25


def test_a_folder_that_cannot_be_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(file: Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(file, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StorageError, match=r"Read-only file system.*make that folder writable, or copy the model"):
        LotHistory.open(path, MODEL)
    assert read_history(path, MODEL) == ()


def test_a_file_that_cannot_be_read(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        read_history(path, MODEL)
    with pytest.raises(StorageError, match="Is a directory"):
        LotHistory.open(path, MODEL)


def test_a_link_is_not_written_through(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("")
    path.symlink_to(target)
    with pytest.raises(StorageError):
        LotHistory.open(path, MODEL)


def test_a_full_disk_leaves_the_history_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(path, lot(1))
    real = os.write

    def full_disk(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:-50])

    with LotHistory.open(path, MODEL) as history:
        monkeypatch.setattr(os, "write", full_disk)
        with pytest.raises(StorageError, match="No space left on device"):
            history.append(lot(2))
        assert path.read_bytes() == before
        assert ids(history.before("new")) == ["Los 1 ü"]
        monkeypatch.setattr(os, "write", real)
        history.append(lot(2))
    assert ids(read_history(path, MODEL)) == ["Los 1 ü", "Los 2 ü"]


def test_a_failed_opening_leaves_no_lock(path: Path) -> None:
    whole = write(path, lot(1), lot(2))
    path.write_bytes(whole[5:])
    with pytest.raises(IntegrityError):
        LotHistory.open(path, MODEL)
    path.write_bytes(whole)
    script = (
        f"from pathlib import Path; from explainvad.record.history import *; LotHistory.open(Path({str(path)!r}), '')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_file_is_lines_of_json(path: Path) -> None:
    first, second = map(json.loads, write(path, lot(1), lot(2)).splitlines())
    assert first["body"]["values"] == {name: list(values) for name, values in lot(1).values.items()}
    assert (first["seq"], second["seq"], first["event"]) == (1, 2, "lot")
