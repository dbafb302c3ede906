"""Whatever lies in a lot has exactly one named line in ledger, CSV and report, and never stops the others."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pikepdf
import pytest
from command_line import Outcome, explainvad, ledger
from PIL import Image
from tiny_parts import GOOD, part, write_lot, write_part

from explainvad import Inspector, verify_run
from explainvad.errors import LotError
from explainvad.read_ahead import AHEAD
from explainvad.reporting import load_report

INSPECTED = ""  # in place of a reason

# name -> how the file is made, and the reason (a pattern) why it is not inspected
Make = Callable[[Path], object]


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    """A normal part in a mode of Pillow."""
    image = Image.fromarray(part(seed))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return image
    return image.convert(mode)


def save(seed: int, mode: str = "RGB", **options: object) -> Make:
    return lambda path: picture(seed, mode).save(path, **options)


def cut(seed: int, kind: str) -> Make:
    """The first half of an image file."""

    def make(path: Path) -> None:
        picture(seed).save(path, kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


def frames(seed: int, kind: str) -> Make:
    return lambda path: picture(seed).save(path, kind, save_all=True, append_images=[picture(seed + 1)])


def bomb(path: Path) -> None:
    """A few bytes that promise 3600 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def data(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def link(target: str) -> Make:
    return lambda path: path.symlink_to(target)


ITEMS: dict[str, tuple[Make, str]] = {
    # content
    "empty.png": (data(b""), "file is empty"),
    "cut.jpg": (cut(1, "JPEG"), "truncated JPEG"),
    "cut.png": (cut(2, "PNG"), "(truncated|damaged) PNG"),
    "text.png": (data(b"Export failed: no camera.\n"), "not an image: text content"),
    "zeros.png": (data(bytes(500)), "nothing but zero bytes"),
    "drawing.pdf": (data(b"%PDF-1.7\n"), "unsupported format .PDF document."),
    "bomb.png": (bomb, "over the limit of 100 megapixels"),
    "dot.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "1 x 1 px: smaller than 16 px a side"),
    "animated.gif": (frames(3, "GIF"), "2 frames or pages, expected one"),
    "animated.png": (frames(4, "PNG"), "2 frames or pages, expected one"),
    "large.png": (
        lambda path: Image.fromarray(part(5, width=160, height=128)).save(path),
        "size 160 x 128 px, but the model was fitted on 80 x 64 px",
    ),
    # picture types that are none of the references', and can be looked at
    "cmyk.jpg": (save(11, "CMYK"), INSPECTED),
    "depth16.png": (save(12, "I;16"), INSPECTED),
    "palette.png": (save(13, "P"), INSPECTED),
    "grey.png": (save(14, "L"), INSPECTED),
    "alpha.png": (save(15, "RGBA"), INSPECTED),
    "misnamed.jpg": (save(16, format="PNG"), INSPECTED),
    # names
    "below/deep/good.png": (save(21), INSPECTED),
    "new\nline.png": (save(22), INSPECTED),
    "esc\x1b[31mred.png": (save(23), INSPECTED),
    "bidi\u202egnp.png": (save(24), INSPECTED),
    "bytes\udcff\udcfe.png": (save(25), INSPECTED),
    "=1+1.png": (save(26), INSPECTED),
    "<b>&amp;{{ 7*7 }}.png": (save(27), INSPECTED),
    "a\u0301.png": (save(28), INSPECTED),
    "\u00e1.png": (save(29), INSPECTED),  # looks like the one before
    "no suffix": (save(30, format="PNG"), INSPECTED),
    # links, pipes, twins, permission
    "link-broken.png": (link("gone.png"), "broken link"),
    "link-out.png": (link("../outside.png"), "link that leads out of the folder"),
    "link-loop.png": (link("link-loop.png"), "links lead in a circle"),
    "link-folder": (link("below"), "link to a folder"),
    "pipe.png": (os.mkfifo, "pipe, socket or device"),
    "twin-1.png": (save(31), INSPECTED),
    "twin-2.png": (save(31), r"same content as img-\d{5} \(twin-1\.png\), which was inspected"),
    "locked.png": (save(32), "no read permission"),
}
FAILING = {name for name, (_, reason) in ITEMS.items() if reason != INSPECTED}
LEFT_OUT = ["lot.toml", "explainvad.toml", ".hidden.png", "Thumbs.db"]


@dataclass(frozen=True)
class Inspected:
    """A lot of everything that can go wrong, after its inspection."""

    lot: Path
    run_dir: Path
    outcome: Outcome

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader((self.run_dir / "results.csv").read_text("utf-8").splitlines()))


@pytest.fixture(scope="module")
def bad(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    root = tmp_path_factory.mktemp("bad")
    lot = root / "lot"
    for name, (make, _) in ITEMS.items():
        (lot / name).parent.mkdir(parents=True, exist_ok=True)
        make(lot / name)
    write_part(root / "outside.png", 40)
    (lot / "lot.toml").write_text('lot_id = "bad"')
    (lot / "explainvad.toml").write_text("q = 0.2")
    (lot / ".hidden.png").write_bytes(b"x")
    (lot / "Thumbs.db").write_bytes(b"x")
    with pytest.MonkeyPatch.context() as patch:
        _lock(lot / "locked.png", patch)
        outcome = explainvad("analyze", lot, "--model", model, "--out", root / "run")
    return Inspected(lot, root / "run", outcome)


def _lock(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Take the permission to read; from root, who may read everything, by refusing to open."""
    path.chmod(0)
    really_open = os.open

    def refusing_open(opened: str, *arguments: object, **options: object) -> int:
        if os.fspath(opened).endswith("locked.png"):
            raise PermissionError(13, "Permission denied", opened)
        return really_open(opened, *arguments, **options)  # type: ignore[arg-type]

    patch.setattr(os, "open", refusing_open)


def test_the_lot_is_finished_and_the_exit_code_says_that_not_all_of_it(bad: Inspected) -> None:
    assert (bad.outcome.code, bad.outcome.err) == (3, "")
    assert verify_run(bad.run_dir).ok
    assert (bad.run_dir / "report.pdf").is_file()


def test_every_file_has_exactly_one_row_and_the_counts_add_up(bad: Inspected) -> None:
    rows = bad.rows()
    assert len(rows) == len(ITEMS) == len({row["file"] for row in rows}) == len({row["image_id"] for row in rows})
    report = load_report(bad.run_dir)
    counts = Counter(row["decision"] for row in rows)
    assert {name: n for name, n in report.statistics.counts.items() if n} == counts
    assert report.statistics.n_files == len(ITEMS)
    assert report.statistics.n_inspected == len(ITEMS) - counts["NOT_INSPECTED"]
    lines = [line["body"] for line in ledger(bad.run_dir) if line["event"] == "image"]
    assert [line["image_id"] for line in lines] == [row["image_id"] for row in rows]
    assert f"lot bad: {len(ITEMS)} files: " in bad.outcome.out
    assert f"{counts['NOT_INSPECTED']} not inspected" in bad.outcome.out


def test_each_failure_names_its_reason_and_nothing_else_fails(bad: Inspected) -> None:
    failed = {row["file"]: row for row in bad.rows() if row["decision"] == "NOT_INSPECTED"}
    assert set(failed) == FAILING  # their names need no escapes
    for name, row in failed.items():
        assert re.search(ITEMS[name][1], row["reasons"]), (name, row["reasons"])
        assert row["reasons"] and "\n" not in row["reasons"] and str(bad.lot) not in row["reasons"]
        assert row["p_value"] == row["score"] == row["epistemic"] == row["n_regions"] == ""


def test_inspected_files_have_all_their_numbers(bad: Inspected) -> None:
    for row in bad.rows():
        if row["decision"] != "NOT_INSPECTED":
            assert 0 < float(row["p_value"]) <= 1
            assert float(row["score"]) >= 0 and float(row["epistemic"]) >= 0 and int(row["n_regions"]) >= 0
            assert len(row["sha256"]) == 64 and (row["width"], row["height"]) == ("80", "64")
            assert bool(row["reasons"]) == (row["decision"] != "NOT_FLAGGED")


def test_what_decoding_did_is_noted(bad: Inspected) -> None:
    notes = {record.file: " ".join(record.notes) for record in load_report(bad.run_dir).records}
    assert "CMYK converted" in notes["cmyk.jpg"]
    assert "16-bit" in notes["depth16.png"]
    assert "transparent pixels" in notes["alpha.png"]
    assert "extension .jpg, content is PNG" in notes["misnamed.jpg"]
    assert notes["twin-1.png"] == ""


def test_names_are_harmless_wherever_they_are_printed(bad: Inspected) -> None:
    shown = {row["file"] for row in bad.rows()}
    expected = {"below/deep/good.png", r"new\x0aline.png", r"esc\x1b[31mred.png", r"bidi\u202egnp.png"}
    assert expected | {r"bytes\xff\xfe.png", "'=1+1.png"} <= shown
    assert len([name for name in shown if re.fullmatch("(a\u0301|\u00e1).png~[0-9a-f]{8}", name)]) == 2
    for name in ("results.csv", "report.html", "report.json", "ledger.jsonl"):
        text = (bad.run_dir / name).read_bytes().decode("utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), name
    assert "<b>" not in re.sub(r"<style.*?</style>", "", (bad.run_dir / "report.html").read_text("utf-8"))


def test_the_report_names_every_file_that_was_not_inspected(bad: Inspected) -> None:
    page = " ".join(html.unescape((bad.run_dir / "report.html").read_text("utf-8")).split())
    for row in bad.rows():
        if row["decision"] == "NOT_INSPECTED":
            assert row["file"] in page and row["reasons"] in page, row["file"]
    with pikepdf.open(bad.run_dir / "report.pdf") as pdf:
        attached = pdf.attachments["results.csv"].get_file().read_bytes()
        n_pages = len(pdf.pages)
    assert attached == (bad.run_dir / "results.csv").read_bytes()
    flagged = [row for row in bad.rows() if row["decision"] in ("REJECT", "DEFER")]
    assert n_pages > len(flagged)
    assert len(json.loads((bad.run_dir / "report.json").read_text())["records"]) == len(ITEMS)


def test_configuration_is_no_item_but_counts(bad: Inspected) -> None:
    assert not {row["file"] for row in bad.rows()} & set(LEFT_OUT)
    report = load_report(bad.run_dir)
    assert (report.lot.lot_id, report.statistics.fdr_level) == ("bad", 0.2)


def test_a_lot_of_which_nothing_can_be_inspected_still_has_a_report(model: Path, tmp_path: Path) -> None:
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot" / "a.png").write_bytes(b"")
    (tmp_path / "lot" / "b.png").write_text("text")
    done = explainvad("analyze", tmp_path / "lot", "--model", model, "--out", tmp_path / "run")
    assert (done.code, done.err) == (3, "")
    statistics = load_report(tmp_path / "run").statistics
    assert (statistics.n_files, statistics.n_inspected) == (2, 0)
    assert statistics.reject_rate is None and statistics.defer_rate is None
    with pikepdf.open(tmp_path / "run" / "report.pdf") as pdf:
        assert len(pdf.pages) >= 2


def test_a_folder_that_vanishes_leaves_a_finished_run_with_named_lines(inspector: Inspector, tmp_path: Path) -> None:
    lot = write_lot(tmp_path / "lot", [GOOD] * 12)

    def vanish(_: str, done: int, __: int) -> None:
        if done == 2:
            shutil.rmtree(lot)

    report = inspector.analyze(lot, tmp_path / "run", progress=vanish)
    judged = [record.verdict is not None for record in report.records]
    first = judged.index(False)  # some were decoded ahead before the folder went
    assert 2 <= first <= 2 + AHEAD + 1 and not any(judged[first:])
    assert all(record.failure and "\n" not in record.failure for record in report.records[first:])
    assert report.statistics.counts["NOT_INSPECTED"] == len(judged) - first
    report.render(formats=["html", "csv"])


def test_a_folder_without_items_is_refused_before_anything_is_written(inspector: Inspector, tmp_path: Path) -> None:
    (tmp_path / "lot" / "below").mkdir(parents=True)
    for name in LEFT_OUT:
        (tmp_path / "lot" / name).write_bytes(b"")
    with pytest.raises(LotError, match="holds no files to inspect"):
        inspector.analyze(tmp_path / "lot", tmp_path / "run")
    assert not (tmp_path / "run").exists()
