"""``explainvad models``: what it says, what it refuses, and with which exit code."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import explainvad, tree
from tiny_models import CLIP, CNN, VIT, write_store, write_weights

from explainvad.detection.catalogue import CATALOGUE
from explainvad.detection.weights_lock import LOCK, read_lock


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of tiny networks. Tests must not change it."""
    return write_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of this machine, with tiny networks in it, and no network."""
    monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("EXPLAINVAD_OFFLINE", "1")
    return Path(shutil.copytree(made, tmp_path / "store"))


def rows(printed: str) -> dict[str, str]:
    """Lines of a table by their first word."""
    return {line.split()[0]: line for line in printed.split("\n\n")[0].splitlines()[1:]}


class TestList:
    """``models list``."""

    def test_every_known_backbone_has_a_line(self, store: Path) -> None:
        done = explainvad("models", "list")
        assert (done.code, done.err) == (0, "")
        found = rows(done.out)
        assert list(found) == [*CATALOGUE, CLIP, CNN, VIT]
        for name, entry in CATALOGUE.items():
            state = "missing" if entry.hub else "shipped"
            assert found[name].split()[1:4] == [state, str(entry.megabytes), entry.licence.split()[0]]
            assert found[name].endswith(entry.purpose)
        assert found[VIT].split(maxsplit=3)[1:] == ["locked", "1", "not stated      your own"]
        assert f"\nstore {store}\n" in done.out

    def test_states_are_told_apart(self, store: Path) -> None:
        shutil.rmtree(store / VIT)
        (store / "dino-small").mkdir()
        found = rows(explainvad("models", "list").out)
        assert "locked, missing" in found[VIT]
        assert "present, not locked" in found["dino-small"]
        assert " locked " in found[CNN]

    def test_a_narrow_terminal_keeps_names_whole(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setenv("COLUMNS", "60")
        monkeypatch.setattr(io, "StringIO", Terminal)
        lines = explainvad("models", "list").out.split("\n\n")[0].splitlines()
        assert max(map(len, lines)) <= 60
        assert any(line.startswith("clip-vit-b-16-plus-240 ") for line in lines)
        assert any(line.startswith(" " * 23) for line in lines)  # long cells go on below

    def test_a_store_that_is_not_there_is_empty(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(tmp_path / "none"))
        assert list(rows(explainvad("models", "list").out)) == list(CATALOGUE)
        assert not (tmp_path / "none").exists()


class TestPull:
    """``models pull``."""

    def test_from_a_folder(self, store: Path, made: Path) -> None:
        done = explainvad("models", "pull", "mine", "--from", made / VIT)
        locked = read_lock(store).weights["mine"]
        assert (done.code, done.err) == (0, "")
        assert done.out == f"locked  mine: mine from a folder, sha256 {locked.sha256[:16]}…, licence not stated\n"
        assert tree(store / "mine") == tree(made / VIT)

    def test_other_weights_need_update(self, store: Path, made: Path, tmp_path: Path) -> None:
        done = explainvad("models", "pull", VIT, "--from", made / CNN)
        assert done.code == 4
        assert f"{VIT}/config.json is not what {LOCK} says: expected sha256" in done.err
        assert explainvad("models", "pull", VIT, "--from", made / CNN, "--update").code == 0
        assert tree(store / VIT) == tree(made / CNN)

    def test_a_folder_is_for_one_name(self, store: Path, made: Path) -> None:
        done = explainvad("models", "pull", "a", "b", "--from", made / VIT)
        assert done.code == 2
        assert "--from holds the weights of one model, got 2 names" in done.err

    def test_without_a_network_it_says_what_to_do(self, store: Path) -> None:
        done = explainvad("models", "pull", "dino-small")
        assert done.code == 2
        assert "EXPLAINVAD_OFFLINE forbids the network" in done.err
        assert "`explainvad models import` takes up here" in done.err
        assert not (store / "dino-small").exists()


class TestVerify:
    """``models verify``."""

    def test_whole_ones_are_listed(self, store: Path) -> None:
        done = explainvad("models", "verify")
        assert (done.code, done.err) == (0, "")
        assert [line.split(":")[0] for line in done.out.splitlines()] == [f"checked  {n}" for n in (CLIP, CNN, VIT)]

    def test_an_altered_one_is_named_and_the_others_checked(self, store: Path) -> None:
        path = store / CNN / "model.safetensors"
        assert explainvad("models", "verify").code == 0
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        times = path.stat()
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        done = explainvad("models", "verify")
        assert done.code == 4
        assert done.err.startswith(f"ALTERED  {CNN}/model.safetensors: expected sha256 ")
        assert [line.split(":")[0] for line in done.out.splitlines()] == [f"checked  {n}" for n in (CLIP, VIT)]
        assert explainvad("models", "verify", VIT).code == 0

    def test_one_that_is_gone_is_altered(self, store: Path) -> None:
        shutil.rmtree(store / VIT)
        done = explainvad("models", "verify", VIT)
        assert done.code == 4
        assert done.err.count("cannot be read: No such file") == 2

    def test_unlocked_ones_are_mentioned_and_not_trusted(self, store: Path) -> None:
        shutil.copytree(store / VIT, store / "stranger")
        done = explainvad("models", "verify")
        assert (done.code, done.out.splitlines()[-1]) == (0, "not locked  stranger: it will not be loaded")
        done = explainvad("models", "verify", "stranger")
        assert (done.code, "expected locked weights, stranger are not" in done.err) == (2, True)

    def test_a_damaged_lock_is_an_integrity_failure(self, store: Path) -> None:
        (store / LOCK).write_text("{}}")
        assert explainvad("models", "verify").code == 4


class TestArchive:
    """``models export`` and ``models import``."""

    def test_there_and_back(self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done = explainvad("models", "export", VIT, CLIP, "--out", tmp_path / "w.tar")
        assert (done.code, done.out, done.err) == (0, f"archive {tmp_path / 'w.tar'}\n", "")
        monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(tmp_path / "plant"))
        done = explainvad("models", "import", tmp_path / "w.tar")
        assert (done.code, done.err) == (0, "")
        assert [line.split(":")[0] for line in done.out.splitlines()] == [f"locked  {CLIP}", f"locked  {VIT}"]
        assert explainvad("models", "verify").code == 0

    def test_an_archive_against_the_lock_needs_update(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert explainvad("models", "export", VIT, "--out", tmp_path / "w.tar").code == 0
        config: dict[str, Any] = {"architecture": "resnet10t", "pretrained_cfg": {"mean": [0] * 3, "std": [1] * 3}}
        write_weights(tmp_path / "other", "timm", config)
        assert explainvad("models", "pull", VIT, "--from", tmp_path / "other", "--update").code == 0
        done = explainvad("models", "import", tmp_path / "w.tar")
        assert (done.code, "--update" in done.err) == (4, True)
        assert explainvad("models", "import", tmp_path / "w.tar", "--update").code == 0

    def test_a_damaged_archive_is_an_integrity_failure(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "w.tar").write_bytes(bytes(2000))
        assert explainvad("models", "import", tmp_path / "w.tar").code == 4
