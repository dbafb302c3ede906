"""Weights come into the store whole, locked and by intention, or the store is as it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import tree
from safetensors.torch import load_file
from tiny_models import CLIP, CLIP_CONFIG, CNN, write_weights

from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.detection.weights_lock import LOCK, read_lock
from explainvad.errors import IntegrityError, StorageError, WeightsError

CONFIG: dict[str, Any] = {
    "architecture": "vit_tiny_patch16_224",
    "model_args": {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 12,
        "depth": 1,
        "num_heads": 2,
        "dynamic_img_size": True,
    },
    "multiple": 8,
    "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "license": "mit"},
}


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    """A store that is not there yet."""
    return WeightStore(tmp_path / "store")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Weights of one's own in a folder."""
    write_weights(tmp_path / "own", "timm", CONFIG)
    return tmp_path / "own"


def spoil(folder: Path, seed: int = 1) -> None:
    """Other weights of the same network."""
    shutil.rmtree(folder)
    write_weights(folder, "timm", CONFIG, seed)


class TestBringing:
    """``explainvad models pull NAME --from FOLDER``."""

    def test_the_files_are_copied_and_locked(self, store: WeightStore, own: Path) -> None:
        before = tree(own)
        locked = bring(store, "mine", own)
        assert tree(own) == before
        assert tree(store.root) == {LOCK: (store.root / LOCK).read_bytes()} | {
            f"mine/{n}": b for n, b in before.items()
        }
        assert read_lock(store.root).weights == {"mine": locked}
        assert (locked.origin, locked.licence, locked.hub, locked.revision) == ("folder", "mit", None, None)
        assert locked.size == sum(map(len, before.values()))
        assert store.weights("mine").describe() == f"mine from a folder, sha256 {locked.sha256[:16]}…, mit"

    def test_others_on_this_machine_may_read_them(self, store: WeightStore, own: Path) -> None:
        mask = os.umask(0o022)
        try:
            bring(store, "mine", own)
        finally:
            os.umask(mask)
        assert (store.root / "mine").stat().st_mode & 0o777 == 0o755

    def test_in_place_nothing_is_copied(self, store: WeightStore, own: Path) -> None:
        folder = Path(shutil.copytree(own, store.root / "mine"))
        number = (folder / "model.safetensors").stat().st_ino
        bring(store, "mine", folder)
        assert (folder / "model.safetensors").stat().st_ino == number
        assert store.weights("mine").network()

    def test_the_licence_is_the_stated_one_or_unknown(self, store: WeightStore, own: Path) -> None:
        stated = {key: value for key, value in CONFIG.items() if key != "pretrained_cfg"}
        stated["pretrained_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3}
        (own / "config.json").write_text(json.dumps(stated))
        assert bring(store, "silent", own).describe("silent").endswith("licence not stated")
        (own / "config.json").write_text(json.dumps(stated | {"licence": "ours"}))
        assert bring(store, "stated", own).licence == "ours"

    def test_twice_the_same_changes_nothing(self, store: WeightStore, own: Path) -> None:
        bring(store, "mine", own)
        before = tree(store.root)
        bring(store, "mine", own)
        assert tree(store.root) == before

    def test_others_under_the_name_are_refused_with_both_hashes(self, store: WeightStore, own: Path) -> None:
        first = bring(store, "mine", own)
        before = tree(store.root)
        spoil(own)
        with pytest.raises(IntegrityError, match=f"expected sha256 {first.sha256} .*, got [0-9a-f]{{64}} .*--update"):
            bring(store, "mine", own)
        assert tree(store.root) == before

    def test_update_moves_the_lock_on_purpose(self, store: WeightStore, own: Path) -> None:
        first = bring(store, "mine", own)
        spoil(own)
        second = bring(store, "mine", own, update=True)
        assert second.sha256 != first.sha256
        assert read_lock(store.root).weights["mine"] == second
        assert store.weights("mine").tensors().keys() == load_file(own / "model.safetensors").keys()
        assert sorted(p.name for p in store.root.iterdir()) == ["mine", LOCK]

    def test_bringing_them_again_repairs_them(self, store: WeightStore, own: Path) -> None:
        bring(store, "mine", own)
        (store.root / "mine/model.safetensors").write_bytes(b"rust")
        bring(store, "mine", own)
        assert store.weights("mine").network()

    def test_what_nobody_locked_is_left_alone(self, store: WeightStore, own: Path) -> None:
        (store.root / "mine").mkdir(parents=True)
        (store.root / "mine/work.txt").write_text("of a week")
        with pytest.raises(WeightsError, match="holds weights that nobody locked"):
            bring(store, "mine", own)
        assert (store.root / "mine/work.txt").read_text() == "of a week"

    def test_the_shipped_one_keeps_its_name(self, store: WeightStore, own: Path) -> None:
        with pytest.raises(WeightsError, match="embedded ships with the package"):
            bring(store, "embedded", own)

    def test_a_folder_without_weights_is_described(self, store: WeightStore, tmp_path: Path) -> None:
        with pytest.raises(
            WeightsError, match=r"expected a folder with config\.json and model\.safetensors .*got .*nowhere"
        ):
            bring(store, "mine", tmp_path / "nowhere")
        assert not (store.root / LOCK).exists()

    def test_of_two_layouts_the_known_name_decides(self, store: WeightStore, tmp_path: Path) -> None:
        both = tmp_path / "both"
        write_weights(both, "open_clip", CLIP_CONFIG)
        (both / "config.json").write_text("{}")
        assert bring(store, CLIP, both).library == "open_clip"
        with pytest.raises(
            WeightsError, match=r"expected model\.safetensors in .*both, or one file of tensors, got none"
        ):
            bring(store, "dino-small", both)

    def test_no_tensors_but_noise_is_refused(self, store: WeightStore, own: Path) -> None:
        (own / "model.safetensors").write_bytes(b"noise" * 100)
        with pytest.raises(WeightsError, match="mine: expected tensors in the format safetensors"):
            bring(store, "mine", own)
        assert list(store.root.iterdir()) == []


class TestPickles:
    """Pickled tensors are read without running them, and kept as safetensors."""

    @pytest.fixture
    def tensors(self, own: Path) -> dict[str, torch.Tensor]:
        """Those of the folder, which holds them no more."""
        found = load_file(own / "model.safetensors")
        (own / "model.safetensors").unlink()
        return found

    @pytest.mark.parametrize("file", ["pytorch_model.bin", "epoch_32.pt", "weights.pth"])
    def test_a_state_dict_is_taken(
        self, store: WeightStore, own: Path, tensors: dict[str, torch.Tensor], file: str
    ) -> None:
        torch.save(tensors, own / file)
        bring(store, "mine", own)
        assert sorted(p.name for p in (store.root / "mine").iterdir()) == ["config.json", "model.safetensors"]
        got = store.weights("mine").tensors()
        assert all(torch.equal(got[key], value) for key, value in tensors.items())

    def test_as_training_in_parallel_wraps_it(
        self, store: WeightStore, own: Path, tensors: dict[str, torch.Tensor]
    ) -> None:
        wrapped = {"epoch": 32, "state_dict": {f"module.{key}": value for key, value in tensors.items()}}
        torch.save(wrapped, own / "run.pt")
        bring(store, "mine", own)
        assert store.weights("mine").tensors().keys() == tensors.keys()

    def test_in_place_it_stays_beside_the_safetensors(
        self, store: WeightStore, own: Path, tensors: dict[str, torch.Tensor]
    ) -> None:
        torch.save(tensors, own / "pytorch_model.bin")
        folder = Path(shutil.copytree(own, store.root / "mine"))
        bring(store, "mine", folder)
        assert (folder / "pytorch_model.bin").exists()
        assert store.weights("mine").network()

    def test_code_is_not_run(
        self, store: WeightStore, own: Path, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "ran",)

        torch.save({**tensors, "trap": Trap()}, own / "pytorch_model.bin")
        with pytest.raises(
            WeightsError, match=r"pytorch_model\.bin was refused: expected a file of tensors and nothing else"
        ):
            bring(store, "mine", own)
        assert not (tmp_path / "ran").exists()
        assert not (store.root / "mine").exists()

    @pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], {}], ids=["number", "list", "nothing"])
    def test_it_must_be_a_state_dict(
        self, store: WeightStore, own: Path, tensors: dict[str, torch.Tensor], content: Any
    ) -> None:
        torch.save(content, own / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="expected a state dict"):
            bring(store, "mine", own)

    def test_which_of_two_is_not_guessed(self, store: WeightStore, own: Path, tensors: dict[str, torch.Tensor]) -> None:
        for file in ("a.pt", "b.pt"):
            torch.save(tensors, own / file)
        with pytest.raises(WeightsError, match=r"one file of tensors, got a\.pt, b\.pt"):
            bring(store, "mine", own)


class TestFailures:
    """A disk that fails leaves the store as it was."""

    @pytest.mark.parametrize("step", ["copyfile", "rename", "fsync"])
    @pytest.mark.parametrize("update", [False, True])
    def test_a_full_disk(
        self, store: WeightStore, own: Path, monkeypatch: pytest.MonkeyPatch, step: str, update: bool
    ) -> None:
        if update:
            bring(store, "mine", own)
            spoil(own)
        before = tree(store.root)

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        target = {"copyfile": shutil, "rename": Path, "fsync": os}[step]
        with monkeypatch.context() as patched:
            patched.setattr(target, step, full)
            with pytest.raises(
                StorageError,
                match=r"mine could not be taken up: .*No space left on device.*give the same command again",
            ):
                bring(store, "mine", own, update=update)
        assert tree(store.root) == before
        bring(store, "mine", own, update=update)
        assert store.weights("mine").network()

    def test_stopping_by_hand_leaves_nothing(
        self, store: WeightStore, own: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "copyfile", stopped)
        with pytest.raises(KeyboardInterrupt):
            bring(store, "mine", own)
        assert list(store.root.iterdir()) == []

    def test_the_former_ones_come_back_when_the_new_cannot_take_their_place(
        self, store: WeightStore, own: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = bring(store, "mine", own)
        spoil(own)
        rename = Path.rename

        def second_fails(path: Path, target: Path) -> Path:
            if path.name == "weights":
                raise OSError(errno.EIO, "worn out")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", second_fails)
        with pytest.raises(StorageError, match="worn out"):
            bring(store, "mine", own, update=True)
        assert store.weights("mine").locked == first
        assert store.weights("mine").network()


def test_two_at_once_lose_no_entry(store: WeightStore, own: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    folders = {f"m{i}": Path(shutil.copytree(own, tmp_path / f"m{i}")) for i in range(6)}
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda item: bring(store, *item), folders.items()))
    assert sorted(read_lock(store.root).weights) == sorted(folders)


def test_tiny_stores_are_locked_like_any_other(weight_store: Path) -> None:
    assert read_lock(weight_store).weights[CNN].origin == "folder"
