"""Pulling from a hub on loopback: what comes is recorded, and from then on nothing else comes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import own_process, tree
from huggingface_hub import HfApi
from safetensors.torch import load
from tiny_hub import Files, TinyHub, serving
from tiny_models import CLIP_CONFIG, write_weights
from tiny_sam import NAME as SAM
from tiny_sam import tiny_sam, write_sam

from explainvad.detection.catalogue import CATALOGUE, Pretrained
from explainvad.detection.hub import pull
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_lock import LOCK, read_lock
from explainvad.errors import IntegrityError, StorageError, WeightsError
from explainvad.offline import OFFLINE

NAME, REPOSITORY = "efficientvit-b0", "timm/efficientvit_b0.r224_in1k"
CONFIG = {"architecture": "efficientvit_b0", "num_classes": 5, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.2] * 3}}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    """Two versions of a repository: with the classifier, as the hub has them, and notes that nobody asked for."""
    folder = tmp_path_factory.mktemp("hub")
    for seed in (0, 1):
        write_weights(folder / f"{seed}", "timm", CONFIG, seed, classes=5)
    first, second = ({**tree(folder / f"{seed}"), "README.md": b"notes"} for seed in (0, 1))
    return first, second


@pytest.fixture
def hub(versions: tuple[Files, Files], monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHub]:
    """A hub at the first version, and an environment that allows to ask it."""
    for variable in OFFLINE:
        monkeypatch.delenv(variable, raising=False)
    with serving(TinyHub(REPOSITORY, versions[0])) as served:
        yield served


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    """A store that is not there yet."""
    return WeightStore(tmp_path / "store")


class TestPulling:
    """``explainvad models pull NAME``."""

    def test_the_first_pull_records_commit_and_hashes(
        self, hub: TinyHub, store: WeightStore, versions: tuple[Files, Files]
    ) -> None:
        locked = pull(store, NAME, endpoint=hub.url)
        wanted = {name: data for name, data in versions[0].items() if name != "README.md"}
        assert tree(store.root / NAME) == wanted
        assert (locked.origin, locked.hub, locked.revision, locked.licence) == (
            "hub",
            REPOSITORY,
            hub.newest,
            "Apache-2.0",
        )
        assert read_lock(store.root).weights == {NAME: locked}
        assert sorted(p.name for p in store.root.iterdir()) == [NAME, LOCK]
        assert not any("README" in path for path in hub.asked)
        weights = store.weights(NAME)
        line = f"{REPOSITORY} at {hub.newest[:12]}, sha256 {locked.sha256[:16]}…, Apache-2.0"
        assert (weights.describe(), weights.multiple, weights.std) == (line, 32, (0.2, 0.2, 0.2))
        network = weights.network().state_dict()
        assert all(
            torch.equal(value, network[key])
            for key, value in load(wanted["model.safetensors"]).items()
            if key in network
        )

    def test_what_is_there_as_locked_needs_no_hub(self, hub: TinyHub, store: WeightStore) -> None:
        locked = pull(store, NAME, endpoint=hub.url)
        hub.asked.clear()
        assert pull(store, NAME, endpoint="http://127.0.0.1:9") == locked
        assert hub.asked == []

    def test_a_later_pull_gets_the_locked_commit(
        self, hub: TinyHub, store: WeightStore, versions: tuple[Files, Files]
    ) -> None:
        locked = pull(store, NAME, endpoint=hub.url)
        with serving(TinyHub(REPOSITORY, *versions)) as moved:
            (store.root / NAME / "model.safetensors").unlink()
            assert pull(store, NAME, endpoint=moved.url) == locked
            assert tree(store.root / NAME)["model.safetensors"] == versions[0]["model.safetensors"]
            assert moved.newest not in " ".join(moved.asked)

    def test_update_moves_to_the_newest(self, hub: TinyHub, store: WeightStore, versions: tuple[Files, Files]) -> None:
        first = pull(store, NAME, endpoint=hub.url)
        with serving(TinyHub(REPOSITORY, *versions)) as moved:
            second = pull(store, NAME, update=True, endpoint=moved.url)
            assert second.revision == moved.newest != first.revision
        assert tree(store.root / NAME)["model.safetensors"] == versions[1]["model.safetensors"]
        assert store.weights(NAME).network()

    def test_other_bytes_under_the_locked_commit_are_refused(
        self, hub: TinyHub, store: WeightStore, versions: tuple[Files, Files]
    ) -> None:
        locked = pull(store, NAME, endpoint=hub.url)
        (store.root / NAME / "config.json").unlink()
        before = tree(store.root)
        hub.commits[hub.newest] = versions[1]
        with pytest.raises(IntegrityError, match=f"expected sha256 {locked.sha256} .*got [0-9a-f]{{64}}.*--update"):
            pull(store, NAME, endpoint=hub.url)
        assert tree(store.root) == before

    def test_a_commit_that_is_gone_is_said(
        self, hub: TinyHub, store: WeightStore, versions: tuple[Files, Files]
    ) -> None:
        pull(store, NAME, endpoint=hub.url)
        (store.root / NAME / "config.json").unlink()
        hub.commits = {"f" * 40: versions[0]}
        with pytest.raises(WeightsError, match=r"could not be pulled .*Revision Not Found"):
            pull(store, NAME, endpoint=hub.url)

    def test_a_clip_comes_in_its_layout(
        self, hub: TinyHub, store: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_weights(tmp_path / "clip", "open_clip", CLIP_CONFIG)
        # repositories for both libraries hold timm's layout too
        files = {**tree(tmp_path / "clip"), "config.json": b"{}", "model.safetensors": b"-"}
        entry = Pretrained("open_clip", "tiny", "acme/clip", "MIT", 3, 8, "image and text", "tests")
        monkeypatch.setitem(CATALOGUE, "acme-clip", entry)
        with serving(TinyHub("acme/clip", files)) as served:
            pull(store, "acme-clip", endpoint=served.url)
        assert store.weights("acme-clip").clip().mean == (0.48, 0.46, 0.41)

    def test_a_segment_anything_comes_from_transformers_layout(
        self, hub: TinyHub, store: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_sam(tmp_path / "sam" / "model.safetensors")
        files = {**tree(tmp_path / "sam"), "config.json": b'{"model_type": "sam"}'}
        entry = Pretrained("segment_anything", SAM, "acme/sam", "MIT", 1, 1, "promptable", "tests")
        monkeypatch.setitem(CATALOGUE, "acme-sam", entry)
        with serving(TinyHub("acme/sam", files)) as served:
            locked = pull(store, "acme-sam", endpoint=served.url)
            assert pull(store, "acme-sam", endpoint=served.url) == locked
        assert locked.hub == "acme/sam" and set(locked.files) == {"sam_config.json", "sam_model.safetensors"}
        assert store.weights("acme-sam").sam().state_dict().keys() == tiny_sam().state_dict().keys()

    def test_pickled_tensors_are_taken_where_there_is_nothing_else(
        self, hub: TinyHub, store: WeightStore, versions: tuple[Files, Files], tmp_path: Path
    ) -> None:
        safe = versions[0]["model.safetensors"]
        torch.save(load(safe), tmp_path / "pytorch_model.bin")
        pickled = (tmp_path / "pytorch_model.bin").read_bytes()
        hub.commits[hub.newest] = {"config.json": versions[0]["config.json"], "pytorch_model.bin": pickled}
        pull(store, NAME, endpoint=hub.url)
        assert sorted(tree(store.root / NAME)) == ["config.json", "model.safetensors"]
        got, expected = store.weights(NAME).tensors(), load(safe)
        assert got.keys() == expected.keys() and all(torch.equal(got[key], expected[key]) for key in got)

    def test_of_both_the_pickle_is_not_even_fetched(self, hub: TinyHub, store: WeightStore) -> None:
        hub.commits[hub.newest] |= {"pytorch_model.bin": b"code"}
        pull(store, NAME, endpoint=hub.url)
        assert not any(path.endswith(".bin") for path in hub.asked)
        del hub.commits[hub.newest]["pytorch_model.bin"]


class TestRefusals:
    """A pull that fails leaves nothing under the name, and says what to do."""

    @pytest.fixture(autouse=True)
    def _nothing_stays(self, store: WeightStore) -> Iterator[None]:
        yield
        assert not store.root.exists() or list(store.root.iterdir()) == []

    def test_a_download_that_ends_early(self, hub: TinyHub, store: WeightStore) -> None:
        hub.cut = {"model.safetensors"}
        with pytest.raises(WeightsError, match=r"could not be pulled from timm/.* should be of size"):
            pull(store, NAME, endpoint=hub.url)

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
    def test_a_file_altered_on_the_way(self, hub: TinyHub, store: WeightStore, file: str) -> None:
        hub.altered = {file}
        with pytest.raises(
            IntegrityError, match=f"{file}: the hub announced sha256 [0-9a-f]{{64}} .* but sent [0-9a-f]{{64}}"
        ):
            pull(store, NAME, endpoint=hub.url)

    def test_weights_that_do_not_load(self, hub: TinyHub, store: WeightStore, versions: tuple[Files, Files]) -> None:
        other = json.dumps(CONFIG | {"model_args": {"widths": [8, 16, 24, 32, 40]}}).encode()
        hub.commits[hub.newest] = {**versions[0], "config.json": other}
        with pytest.raises(WeightsError, match=f"{NAME}: expected .* of shape"):
            pull(store, NAME, endpoint=hub.url)

    @pytest.mark.parametrize("variable", OFFLINE)
    def test_offline(self, hub: TinyHub, store: WeightStore, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        monkeypatch.setenv(variable, "1")
        with pytest.raises(WeightsError, match=f"{variable} forbids the network: .*models export.*models import"):
            pull(store, NAME, endpoint=hub.url)
        assert hub.asked == []

    def test_a_hub_that_cannot_be_reached(self, hub: TinyHub, store: WeightStore) -> None:
        with pytest.raises(
            WeightsError, match=r"could not be pulled from timm/.*Try again; or on a machine with a network"
        ):
            pull(store, NAME, endpoint="http://127.0.0.1:9")

    def test_a_page_where_the_hub_should_be(
        self, hub: TinyHub, store: WeightStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(TinyHub, "info", lambda *_: b"<html>Log in to the guest network</html>")
        with pytest.raises(WeightsError, match="could not be pulled from timm/"):
            pull(store, NAME, endpoint=hub.url)

    def test_a_repository_without_weights(self, hub: TinyHub, store: WeightStore) -> None:
        hub.commits[hub.newest] = {"README.md": b"soon"}
        with pytest.raises(
            WeightsError, match=r"expected config\.json and model\.safetensors in timm/.*, got README\.md"
        ):
            pull(store, NAME, endpoint=hub.url)

    def test_a_repository_that_is_not_there(self, hub: TinyHub, store: WeightStore) -> None:
        with pytest.raises(
            WeightsError, match=r"resnet-18 could not be pulled from timm/resnet18\.tv_in1k: .*Repository Not Found"
        ):
            pull(store, "resnet-18", endpoint=hub.url)

    @pytest.mark.parametrize(
        ("name", "message"), [("mine", "no weights called mine to pull"), ("embedded", "ships with the package")]
    )
    def test_names_that_no_hub_has(self, hub: TinyHub, store: WeightStore, name: str, message: str) -> None:
        with pytest.raises(WeightsError, match=message):
            pull(store, name, endpoint=hub.url)
        assert hub.asked == []

    @pytest.mark.parametrize(
        ("failure", "expected"),
        [(OSError(errno.ENOSPC, "No space left on device"), StorageError), (KeyboardInterrupt(), KeyboardInterrupt)],
        ids=["full disk", "stopped"],
    )
    def test_half_a_download(
        self,
        hub: TinyHub,
        store: WeightStore,
        monkeypatch: pytest.MonkeyPatch,
        failure: BaseException,
        expected: type[BaseException],
    ) -> None:
        def half(*_: object, local_dir: Path, **__: object) -> None:
            Path(local_dir).mkdir()
            (Path(local_dir) / "model.safetensors.incomplete").write_bytes(b"half")
            raise failure

        monkeypatch.setattr(HfApi, "hf_hub_download", half)
        with pytest.raises(expected):
            pull(store, NAME, endpoint=hub.url)


def test_the_command_asks_the_hub_of_the_environment(hub: TinyHub, store: WeightStore, tmp_path: Path) -> None:
    environment = own_process(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), EXPLAINVAD_WEIGHTS=str(store.root))
    command = [sys.executable, "-c", "from explainvad.cli_models import models_app; models_app()", "pull", NAME]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    locked = read_lock(store.root).weights[NAME]
    assert (done.returncode, done.stdout) == (0, f"locked  {NAME}: {locked.describe(NAME)}\n")
    assert locked.revision == hub.newest
