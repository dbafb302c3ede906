"""Listing and reading lots: stable order, visible names, links that stay inside, reasons for what is not read."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import unicodedata
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from explainvad import lot
from explainvad.errors import ConfigError, LotError, UnreadableImageError
from explainvad.lazy_images import LazyImages
from explainvad.lot import LotFile, collect_references, display_name, read_image, read_lot_info, scan
from explainvad.types import LotInfo


def save(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 18), (value, 0, 0)).save(path, "PNG")
    return path


def shown(files: list[LotFile]) -> list[str]:
    return [file.file for file in files]


def reason(file: LotFile) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        read_image(file, root=file.root)
    text = str(caught.value)
    assert text.isprintable()
    assert str(file.root) not in text
    return text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lot42"
    folder.mkdir()
    return folder


# -- Listing --------------------------------------------------------------------------------------------


def test_scan_walks_folders_and_numbers_by_the_bytes_of_the_paths(root: Path) -> None:
    for name in ("b.png", "a/z.png", "a-1.png", "Z.png", "ä.png", "a/deep/er/x.bmp", "a.png"):
        save(root / name)
    files = scan(root)
    assert shown(files) == ["Z.png", "a-1.png", "a.png", "a/deep/er/x.bmp", "a/z.png", "b.png", "ä.png"]
    assert [file.image_id for file in files[:2]] == ["img-00001", "img-00002"]
    assert files[4].path == root / "a/z.png"


def test_scan_does_not_depend_on_the_order_of_the_file_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        save(root / f"{i % 3}" / f"{i}.png", i)
    expected = scan(root)
    real = lot._list

    def shuffled(*args: Any) -> tuple[list[str], list[str]]:
        items, folders = real(*args)
        random.Random(1).shuffle(items)
        return items, folders[::-1]

    monkeypatch.setattr(lot, "_list", shuffled)
    assert scan(root) == expected


def test_everything_is_an_item_but_configuration_and_litter(root: Path) -> None:
    for name in ("lot.toml", "explainvad.toml", ".DS_Store", "._a.png", "Thumbs.db", "Desktop.ini", "sub/THUMBS.DB"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    save(root / "model.evad" / "manifest.png")
    save(root / ".cache" / "a.png")
    (root / "linked.evad").symlink_to(root / "model.evad")
    for name in ("notes.txt", "report.evad", "no-extension", "sub/data.csv", "lot.toml.bak"):
        (root / name).write_text("x")
    assert shown(scan(root)) == ["lot.toml.bak", "no-extension", "notes.txt", "report.evad", "sub/data.csv"]


def test_scan_refuses_what_is_no_lot(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LotError, match=r"nowhere does not exist.*check the path"):
        scan(tmp_path / "nowhere")
    with pytest.raises(LotError, match="lot42 holds no files to inspect"):
        scan(root)
    (root / ".hidden").touch()
    (root / "empty").mkdir()
    with pytest.raises(LotError, match="lot42 holds no files to inspect"):
        scan(root)
    with pytest.raises(LotError, match=r"a\.png is a file.*name the folder that holds it"):
        scan(save(root / "a.png"))
    with pytest.raises(LotError, match=r"cannot be listed.*null"):
        scan(Path("a\0b"))
    (root / "loop").symlink_to("loop")
    with pytest.raises(LotError, match="loop cannot be listed"):
        scan(root / "loop")


def test_a_lot_without_permission_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(LotError, match=r"cannot be listed \(permission denied\)"):
        scan(root)


def test_a_folder_that_cannot_be_listed_is_an_item_with_a_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(root / "a.png")
    save(root / "locked" / "b.png")
    scandir = os.scandir

    def deny(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    files = scan(root)
    assert shown(files) == ["a.png", "locked"]
    assert reason(files[1]) == "no read permission; grant it and run again"


# -- Names ----------------------------------------------------------------------------------------------

HOSTILE = {
    b"two\nlines.png": r"two\x0alines.png",
    b"\x1b[31mred.png": r"\x1b[31mred.png",
    "safe\u202egnp.exe".encode(): r"safe\u202egnp.exe",
    "zero\u200bwidth\ufeff.png".encode(): r"zero\u200bwidth\ufeff.png",
    b"latin-\xe9\xff.png": r"latin-\xe9\xff.png",
    b"\xc3\xa9.png": "é.png",
    "c1\u0085.png".encode(): r"c1\u0085.png",
    rb"back\x1b.png": r"back\\x1b.png",
    b" two  blanks ": r"\x20two \x20blanks\x20",
    "\u3164\ufe0f\u2800.png".encode(): r"\u3164\ufe0f\u2800.png",
    "\U000e0041tag.png".encode(): r"\U000e0041tag.png",
    b"=cmd|calc.png": "=cmd|calc.png",
    "零件 3.png".encode(): "零件 3.png",
}


def test_hostile_names_are_listed_shown_and_read(root: Path) -> None:
    for i, name in enumerate(HOSTILE):
        save(root / os.fsdecode(name), i)
    files = scan(root)
    assert {os.fsencode(file.path.name): file.file for file in files} == HOSTILE
    for file in files:
        assert read_image(file, root=root).pixels[0, 0, 0] == list(HOSTILE).index(os.fsencode(file.path.name))


def test_names_of_the_full_length_are_capped_and_still_differ(root: Path) -> None:
    names = ["a" * 120 + f"{i}" + "b" * 130 + ".png" for i in range(3)] + ["\u202e" * 80 + ".png"]
    for name in names:
        save(root / name)
    files = scan(root)
    assert len(set(shown(files))) == 4
    for file in files:
        assert len(file.file) <= 160
        assert "…" in file.file
        assert read_image(file, root=root).width == 20
    assert display_name("x" * 160) == "x" * 160
    assert len(display_name("x" * 161)) == 160


def test_names_that_look_the_same_are_told_apart(root: Path) -> None:
    composed, decomposed = "Prüfling.png", unicodedata.normalize("NFD", "Prüfling.png")
    save(root / composed)
    assert shown(scan(root)) == [composed]
    save(root / decomposed)
    files = scan(root)
    looks = {unicodedata.normalize("NFC", file.file) for file in files}
    assert len(looks) == 2
    assert all(file.file.startswith(file.path.name + "~") for file in files)


@given(st.text(st.characters(), max_size=300) | st.binary(max_size=300).map(os.fsdecode))
def test_display_names_are_always_harmless(name: str) -> None:
    text = display_name(name)
    assert text.isprintable()
    assert text.encode("utf-8").decode("utf-8") == text
    assert not {unicodedata.bidirectional(c) for c in text} & {
        *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    }
    assert not any(unicodedata.category(c).startswith(("C", "Zl", "Zp")) for c in text)
    assert len(text) <= 160


@given(*[st.text(st.sampled_from("ab /\\x2001b\u0085\u202e\udc85\udcff\x1b\n"), max_size=12)] * 2)
def test_display_names_of_different_files_differ(one: str, other: str) -> None:
    assert (display_name(one) == display_name(other)) == (one == other)


# -- Reading --------------------------------------------------------------------------------------------


def test_read_image_carries_all_that_the_record_needs(root: Path) -> None:
    path = save(root / "a.jpg", 77)
    (file,) = scan(root)
    image = read_image(file, root=root, mm_per_pixel=0.02)
    assert (image.image_id, image.file, image.source) == ("img-00001", "a.jpg", path)
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.size_bytes == path.stat().st_size
    assert image.mm_per_pixel == 0.02
    assert image.notes == ("extension .jpg, content is PNG",)
    assert (image.width, image.height) == (20, 18)
    assert (image.pixels == (77, 0, 0)).all()


def test_links_may_not_leave_the_lot(root: Path, tmp_path: Path) -> None:
    secret = save(tmp_path / "secret" / "s.png")
    save(tmp_path / "lot42-twin" / "t.png")  # a neighbour whose name begins alike
    save(root / "real.png")
    links = {
        "broken.png": root / "missing.png",
        "chain.png": root / "direct.png",
        "direct.png": secret,
        "folder": secret.parent,
        "inner-folder": root / "sub",
        "inside.png": root / "real.png",
        "loop.png": root / "loop2.png",
        "loop2.png": root / "loop.png",
        "relative.png": Path("../secret/s.png"),
        "self": root,
        "twin.png": tmp_path / "lot42-twin" / "t.png",
    }
    save(root / "sub" / "x.png")
    for name, target in links.items():
        (root / name).symlink_to(target)
    out = "link that leads out of the folder; put a copy of the file in its place"
    folder = "link to a folder, not followed; put a copy of the folder in its place"
    files = {file.file: file for file in scan(root)}
    assert set(files) == {*links, "real.png", "sub/x.png"}
    assert read_image(files.pop("inside.png"), root=root).sha256 == read_image(files.pop("real.png"), root=root).sha256
    files.pop("sub/x.png")
    assert {name: reason(file) for name, file in files.items()} == {
        "broken.png": "broken link",
        "chain.png": out,
        "direct.png": out,
        "folder": out,
        "inner-folder": folder,
        "loop.png": "cannot be read: links lead in a circle",
        "loop2.png": "cannot be read: links lead in a circle",
        "relative.png": out,
        "self": folder,
        "twin.png": out,
    }


def test_a_folder_swapped_for_a_link_after_listing_does_not_lead_out(root: Path, tmp_path: Path) -> None:
    save(root / "sub" / "s.png")
    (file,) = scan(root)
    save(tmp_path / "secret" / "s.png")
    (root / "sub").rename(root / "old")
    (root / "sub").symlink_to(tmp_path / "secret")
    assert reason(file) == "link that leads out of the folder; put a copy of the file in its place"


def test_a_wider_root_lets_links_lead_further(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "shared.png", 9)
    (root / "a.png").symlink_to(tmp_path / "shared.png")
    (file,) = scan(root)
    assert reason(file).startswith("link that leads out")
    assert read_image(file, root=tmp_path).pixels[0, 0, 0] == 9


@pytest.mark.timeout(20)
def test_a_file_swapped_for_a_pipe_at_the_last_moment_does_not_hang(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(root / "a.png")
    (file,) = scan(root)
    real = os.open

    def swap(name: Any, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return real(name, flags)

    monkeypatch.setattr(os, "open", swap)
    assert reason(file) == "file is empty"


def test_a_lot_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    save(root / "a.png")
    (tmp_path / "current").symlink_to(root)
    (file,) = scan(tmp_path / "current")
    assert read_image(file, root=tmp_path / "current").height == 18


@pytest.mark.timeout(20)
def test_pipes_and_sockets_are_items_that_are_never_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.png")
    monkeypatch.chdir(root)  # socket paths must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        files = scan(root)
        assert shown(files) == ["pipe.png", "socket.png"]
        for file in files:
            assert reason(file) == "pipe, socket or device, not a file; remove it from the folder"


def raising(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), "no read permission; grant it and run again"),
        (FileNotFoundError(2, "No such file"), "file vanished after the folder was listed"),
        (OSError(5, "Input/output error", "/secret/path"), "cannot be read: input/output error"),
        (OSError(40, "Too many levels of symbolic links"), "cannot be read: links lead in a circle"),
        (MemoryError(), "not enough memory to read the file"),
    ],
)
def test_errors_of_the_system_become_reasons(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    save(root / "a.png")
    (file,) = scan(root)
    monkeypatch.setattr(os, "open", raising(error))
    assert reason(file) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(root: Path) -> None:
    save(root / "a.png").chmod(0)
    (file,) = scan(root)
    assert reason(file) == "no read permission; grant it and run again"


def test_files_that_vanish_grow_or_are_huge_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(root / "a.png")
    (file,) = scan(root)
    fstat = os.fstat

    def before_growth(descriptor: int) -> os.stat_result:
        status = list(fstat(descriptor))
        status[6] -= 1  # size
        return os.stat_result(status)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", before_growth)
        assert reason(file) == "file was changing while it was read; run again when it is complete"

    with path.open("r+b") as stream:
        stream.truncate(513 * 2**20)  # sparse
    assert reason(file) == "513 MiB is over the limit of 512 MiB"
    path.unlink()
    assert reason(file) == "file vanished after the folder was listed"


def test_content_is_refused_with_the_reason_of_the_decoder(root: Path) -> None:
    (root / "a.png").touch()
    (root / "b.png").write_text("not yet taken")
    assert [reason(file) for file in scan(root)] == ["file is empty", "not an image: text content"]


# -- References -----------------------------------------------------------------------------------------


def test_references_of_one_folder_are_named_below_it(root: Path) -> None:
    save(root / "b.png")
    save(root / "a" / "c.png")
    files = collect_references([root])
    assert shown(files) == ["a/c.png", "b.png"]
    assert files == [LotFile(f.image_id, f.file, f.path, root.resolve()) for f in scan(root.resolve())]


def test_references_of_several_places_are_named_below_what_they_share(root: Path, tmp_path: Path) -> None:
    save(root / "good" / "1.png")
    save(tmp_path / "old" / "good" / "1.png")
    single = save(tmp_path / "extra.png")
    paths = [tmp_path / "old", single, root / "good"]
    files = collect_references(paths)
    assert shown(files) == ["extra.png", "lot42/good/1.png", "old/good/1.png"]
    assert collect_references(paths[::-1]) == files


def test_references_named_twice_count_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(root / "sub" / "a.png")
    (root.parent / "alias").symlink_to(root)
    monkeypatch.chdir(root)
    named = [Path(), root, root / "sub", path, Path("sub/../sub/a.png"), root.parent / "alias"]
    assert [file.path for file in collect_references(named)] == [path]


def test_missing_references_are_refused(root: Path) -> None:
    save(root / "a.png")
    with pytest.raises(LotError, match=r"b\.png does not exist"):
        collect_references([root, root / "b.png"])
    with pytest.raises(LotError, match="got none"):
        collect_references([])


def test_lazy_images_decode_on_access_and_remember_what_they_skipped(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        save(root / f"{i}.png", i)
    save(root / "copy-of-2.png", 2)
    (root / "2b.png").write_text("text")
    images = LazyImages(collect_references([root]))
    assert images.skipped == [("2b.png", "not an image: text content"), ("copy-of-2.png", "same content as 2.png")]
    assert shown(list(images.files)) == ["0.png", "1.png", "2.png", "3.png"]

    decoded = []
    real = lot.decode
    monkeypatch.setattr(lot, "decode", lambda data, suffix: decoded.append(suffix) or real(data, suffix))
    subset = images.subset([3, 1])
    assert (len(images), len(subset), len(images[1:]), bool(LazyImages([]))) == (4, 2, 3, False)
    assert decoded == []
    assert [image.pixels[0, 0, 0] for image in subset] == [3, 1]
    assert len(decoded) == 2
    assert images[-1].file == images[3:][0].file == "3.png"
    with pytest.raises(IndexError):
        images[4]


def test_lazy_images_notice_that_a_file_has_changed(root: Path) -> None:
    path = save(root / "a.png", 1)
    images = LazyImages(collect_references([root]))
    save(path, 2)
    with pytest.raises(UnreadableImageError, match=r"a\.png: changed since it was first read"):
        images[0]
    path.unlink()
    with pytest.raises(UnreadableImageError, match=r"a\.png: file vanished"):
        images[0]


def test_references_do_not_follow_links_out_either(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "s.png")
    save(root / "a.png", 1)
    (root / "b.png").symlink_to(tmp_path / "s.png")
    assert [name for name, _ in LazyImages(collect_references([root])).skipped] == ["b.png"]
    assert [name for name, _ in LazyImages(collect_references([root / "b.png"])).skipped] == ["b.png"]


# -- lot.toml -------------------------------------------------------------------------------------------


def info(root: Path, text: str | bytes) -> Any:
    (root / "lot.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_lot_info(root)


def test_lot_info_defaults_to_the_name_of_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_lot_info(root).lot_id == "lot42"
    monkeypatch.chdir(root)
    assert read_lot_info(Path()).lot_id == "lot42"
    assert info(root, 'lot_id = " "\noperator = ""').lot_id == "lot42"
    assert read_lot_info(root).operator is None


def test_lot_info_is_read_whole(root: Path) -> None:
    texts = [field.name for field in fields(LotInfo) if field.name != "mm_per_pixel"]
    lines = [f'{name} = "the {name}"' for name in texts]
    got = info(root, "\ufeff" + "\n".join([*lines, "mm_per_pixel = 1"]))
    assert [getattr(got, name) for name in texts] == [f"the {name}" for name in texts]
    assert got.mm_per_pixel == 1.0
    assert isinstance(got.mm_per_pixel, float)


def test_lot_info_is_escaped_and_capped(root: Path) -> None:
    got = info(root, 'part = "A\\u202eB\\u0007"\ncustomer = """\nx\ny"""\nsite = "' + "s" * 500 + '"')
    assert got.part == r"A\u202eB\x07"
    assert got.customer == r"x\x0ay"
    assert got.site == "s" * 199 + "…"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('operater = "x"', r"unknown key operater in lot\.toml; did you mean operator\?"),
        ("mm_per_px = 1", r"unknown key mm_per_px .* did you mean mm_per_pixel\?"),
        ("xyzzy = 1", r"unknown key xyzzy .* known are lot_id, part, serials, drawing"),
        ('"a\\u001b" = 1', r"unknown key a\\x1b "),
        ("[lot]\npart = 'x'", "unknown key lot in"),
        ("part = 7", "part in lot.toml must be a text in quotes, got 7"),
        ("part = ['a']", "part in lot.toml must be a text in quotes"),
        ("lot_id = 2024-01-01", "lot_id in lot.toml must be a text in quotes"),
        ("mm_per_pixel = '0.1'", "mm_per_pixel in lot.toml must be a number above 0, got '0.1'"),
        ("mm_per_pixel = true", "must be a number above 0, got True"),
        ("mm_per_pixel = 0", "must be a number above 0, got 0"),
        ("mm_per_pixel = -0.5", "must be a number above 0"),
        ("mm_per_pixel = nan", "must be a number above 0"),
        ("mm_per_pixel = inf", "must be a number above 0"),
        ("part = ", "cannot be read as TOML: Invalid value"),
        (b"part = '\xff'", "cannot be read as TOML: 'utf-8' codec"),
        ("part = " + "[" * 5000, "cannot be read as TOML"),
    ],
)
def test_lot_info_refuses_what_it_does_not_understand(root: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        info(root, text)
    assert str(caught.value).isprintable()


@pytest.mark.timeout(20)
def test_lot_info_is_read_as_carefully_as_an_image(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text("part = 'x'")
    path = root / "lot.toml"
    path.symlink_to(tmp_path / "elsewhere.toml")
    with pytest.raises(ConfigError, match="link that leads out"):
        read_lot_info(root)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="pipe, socket or device"):
        read_lot_info(root)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="folder"):
        read_lot_info(root)


def test_pixels_are_decoded_from_the_bytes_that_were_hashed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(root / "a.png", 5)
    (file,) = scan(root)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args[0]) or real(*args))
    image = read_image(file, root=root)
    assert len(opened) == 1
    assert np.unique(image.pixels).tolist() == [0, 5]
