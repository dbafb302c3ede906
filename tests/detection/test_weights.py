"""Weights load as they were locked and in full, or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CLIP, CLIP_CONFIG, CNN, NETWORKS, VIT, write_weights
from torch import Tensor, nn

from explainvad.detection import weights_lock
from explainvad.detection.loading import clip_network, head_keys, load_strictly, timm_network
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.detection.weights_lock import LOCK
from explainvad.errors import IntegrityError, WeightsError

VIT_CONFIG: dict[str, Any] = {
    "architecture": NETWORKS[VIT][0],
    "model_args": NETWORKS[VIT][1],
    "multiple": 8,
    "pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]},
}


@pytest.fixture
def store(weight_store: Path, tmp_path: Path) -> WeightStore:
    """A copy of the store of tiny networks."""
    return WeightStore(Path(shutil.copytree(weight_store, tmp_path / "store")))


def same(network: nn.Module, tensors: dict[str, Tensor]) -> bool:
    """Whether the state dict holds these tensors."""
    own = network.state_dict()
    return own.keys() == tensors.keys() and all(torch.equal(own[key], tensors[key]) for key in own)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


class TestStore:
    """What a name leads to."""

    @pytest.mark.parametrize("name", [VIT, CNN])
    def test_a_network_has_the_tensors_on_disk(self, store: WeightStore, name: str) -> None:
        network = store.weights(name).network()
        assert same(network, load_file(store.root / name / "model.safetensors"))
        assert not network.training

    def test_the_configuration_says_how_images_are_shown(self, tmp_path: Path) -> None:
        write_weights(tmp_path / "own", "timm", VIT_CONFIG)
        store = WeightStore(tmp_path / "store")
        bring(store, "own", tmp_path / "own")
        weights = store.weights("own")
        assert (weights.mean, weights.std, weights.multiple) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), 8)

    def test_missing_ones_name_the_command(self, tmp_path: Path) -> None:
        store = WeightStore(tmp_path / "nowhere")
        with pytest.raises(
            WeightsError, match=r"no weights called dino-small .* run `explainvad models pull dino-small`"
        ):
            store.weights("dino-small")
        with pytest.raises(WeightsError, match="run `explainvad models pull mine --from FOLDER`; "):
            store.weights("mine")
        assert not store.root.exists()

    def test_what_nobody_locked_is_not_loaded(self, store: WeightStore) -> None:
        shutil.copytree(store.root / VIT, store.root / "stranger")
        with pytest.raises(
            WeightsError, match=r"stranger are not in weights\.lock\.json, .*pull stranger --from .*stranger`"
        ):
            store.weights("stranger")

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
    def test_an_altered_file_is_refused_with_both_hashes(self, store: WeightStore, file: str) -> None:
        path = store.root / CNN / file
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        flip_a_bit(path)
        after = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(
            IntegrityError, match=f"{CNN}/{file}: expected sha256 {before} .*got {after} .*models pull {CNN}"
        ):
            store.weights(CNN)

    def test_a_file_altered_after_it_was_named_is_refused_when_it_is_read(self, store: WeightStore) -> None:
        weights = store.weights(VIT)
        flip_a_bit(store.root / VIT / "model.safetensors")
        with pytest.raises(IntegrityError, match="were altered"):
            weights.network()

    def test_a_file_that_is_gone_is_named(self, store: WeightStore) -> None:
        (store.root / VIT / "model.safetensors").unlink()
        with pytest.raises(IntegrityError, match=f"{VIT}/model.safetensors cannot be read: No such file"):
            store.weights(VIT)

    def test_each_file_is_hashed_once_a_process(self, store: WeightStore, monkeypatch: pytest.MonkeyPatch) -> None:
        read = []
        digest = hashlib.file_digest
        monkeypatch.setattr(weights_lock, "_hashed", {})
        monkeypatch.setattr(hashlib, "file_digest", lambda f, kind: read.append(Path(f.name).name) or digest(f, kind))
        for _ in range(3):
            store.weights(VIT).network()
        assert sorted(read) == ["config.json", "model.safetensors"]

    @pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "/etc", "x" * 101])
    def test_a_name_is_no_path(self, store: WeightStore, name: str) -> None:
        with pytest.raises(WeightsError, match="expected a name of letters"):
            store.weights(name)

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("{", "JSON"),
            ('{"version": 2}', "version"),
            ('{"weights": {"../x": {}}}', "weights"),
            ('{"weights": {"x": {"origin": "hub", "at": "", "files": {"model.safetensors": {}}}}}', "sha256"),
            (
                '{"weights": {"x": {"origin": "hub", "at": "", "files": {"other": {"sha256": "%s", "size": 1}}}}}'
                % ("a" * 64),
                "files of one layout",
            ),
        ],
    )
    def test_a_damaged_lock_is_refused(self, store: WeightStore, text: str, place: str) -> None:
        (store.root / LOCK).write_text(text)
        with pytest.raises(IntegrityError, match=rf"(?s)weights\.lock\.json is damaged .*{place}"):
            store.weights(VIT)

    def test_the_root_is_the_environments_or_the_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(tmp_path))
        assert WeightStore().root == tmp_path
        monkeypatch.delenv("EXPLAINVAD_WEIGHTS")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert WeightStore().root == tmp_path / "home/.cache/explainvad/weights"


class TestConfiguration:
    """A configuration that will not do is refused when the weights are brought, with what to change."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"architecture": "resnet999"}, "expected an architecture of timm .* got 'resnet999'"),
            ({"architecture": "hf-hub:someone/model"}, "expected an architecture of timm .* got 'hf-hub:"),
            ({"architecture": None}, "got None"),
            ({"model_args": {"pretrained_cfg_overlay": {"file": "x.pth"}}}, "may not hold pretrained_cfg_overlay"),
            ({"model_args": {"checkpoint_path": "x.pth"}}, "may not hold checkpoint_path"),
            ({"model_args": {"no_such_argument": 1}}, "cannot build vit_tiny_patch16_224 with .*no_such_argument"),
            ({"pretrained_cfg": {"std": [1, 1, 1]}}, "expected mean of the three channels .* got None"),
            (
                {"pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1]}},
                r"expected std of the three channels .* got \[1, 1\]",
            ),
            ({"multiple": 12}, 'must be multiples of 8 px, got 12: put "multiple": 8 in config.json'),
            ({"multiple": 0}, "expected a whole number of pixels as multiple, got 0"),
        ],
    )
    def test_it_is_refused(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        write_weights(tmp_path / "own", "timm", VIT_CONFIG)
        (tmp_path / "own/config.json").write_text(json.dumps(VIT_CONFIG | change))
        with pytest.raises(WeightsError, match=message):
            bring(WeightStore(tmp_path / "store"), "own", tmp_path / "own")
        assert not (tmp_path / "store/own").exists()

    @pytest.mark.parametrize("text", ["{", "[]", '{"a": "' + "a" * (1 << 20) + '"}'], ids=["cut", "list", "long"])
    def test_it_must_be_an_object_of_some_size(self, tmp_path: Path, text: str) -> None:
        write_weights(tmp_path / "own", "timm", VIT_CONFIG)
        (tmp_path / "own/config.json").write_text(text)
        with pytest.raises(WeightsError, match=r"expected a readable config\.json"):
            bring(WeightStore(tmp_path / "store"), "own", tmp_path / "own")

    def test_a_known_name_stands_for_its_architecture(self, tmp_path: Path) -> None:
        write_weights(tmp_path / "own", "timm", VIT_CONFIG)
        with pytest.raises(WeightsError, match="dino-small is vit_small_patch16_224 of timm, got vit_tiny_patch16_224"):
            bring(WeightStore(tmp_path / "store"), "dino-small", tmp_path / "own")


class TestStrictness:
    """Every tensor finds its place."""

    @pytest.fixture
    def vit(self) -> nn.Module:
        torch.manual_seed(0)
        return timm_network(VIT, VIT_CONFIG)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda t: t.pop("norm.weight"), "expects 42 tensors: norm.weight missing"),
            (lambda t: t.update(stray=t["norm.bias"]), "stray left over"),
            (lambda t: t.update({"head.weight": torch.zeros(5, 32)}), "head.weight left over"),
            (
                lambda t: [
                    t.pop(f"blocks.1.attn.{key}") for key in ("proj.bias", "proj.weight", "qkv.bias", "qkv.weight")
                ],
                "blocks.1.attn.proj.bias, blocks.1.attn.proj.weight, blocks.1.attn.qkv.bias and 1 more missing",
            ),
            (lambda t: t.clear(), "expects 42 tensors: .* and 39 more missing"),
            (
                lambda t: t.update({"norm.bias": torch.zeros(31)}),
                r"expected norm.bias of shape \(32,\), got \(31,\)",
            ),
            (
                lambda t: t.update(pos_embed=torch.zeros(1, 26, 32)),
                r"expected pos_embed of shape \(1, 65, 32\), got \(1, 26, 32\)",
            ),
            # with a key that timm's conversion drops; it would resize the other without a word
            (
                lambda t: t.update(mask_token=torch.zeros(1, 32), pos_embed=torch.zeros(1, 26, 32)),
                r"expected pos_embed of shape \(1, 65, 32\), got \(1, 26, 32\)",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, vit: nn.Module, spoil: Callable[[dict[str, Tensor]], object], message: str
    ) -> None:
        tensors = {key: torch.ones_like(value) for key, value in vit.state_dict().items()}
        before = {key: value.clone() for key, value in vit.state_dict().items()}
        spoil(tensors)
        with pytest.raises(WeightsError, match=message):
            load_strictly("own", vit, tensors)
        assert same(vit, before)

    def test_the_classifier_is_dropped_and_nothing_else(self, tmp_path: Path) -> None:
        write_weights(tmp_path / "own", "timm", VIT_CONFIG, classes=5)
        store = WeightStore(tmp_path / "store")
        bring(store, "own", tmp_path / "own")
        whole = load_file(tmp_path / "own/model.safetensors")
        kept = {key: tensor for key, tensor in whole.items() if not key.startswith("head.")}
        assert len(kept) == len(whole) - 2
        assert same(store.weights("own").network(), kept)

        save_file({**whole, "head.extra": torch.zeros(5)}, tmp_path / "own/model.safetensors")
        with pytest.raises(WeightsError, match=r"head\.extra left over"):
            bring(store, "other", tmp_path / "own")

    def test_a_head_of_several_layers_is_dropped_whole(self) -> None:
        keys = head_keys("levit", {"architecture": "levit_128s"})
        assert {"head.linear.weight", "head_dist.linear.weight", "head.bn.running_mean"} <= keys
        assert all(key.startswith("head") for key in keys)

    def test_old_checkpoints_lack_the_counters_of_batch_normalisation(self) -> None:
        config = {"architecture": "resnet10t"}
        network = timm_network(CNN, config)
        tensors = {key: torch.full_like(value, 2) for key, value in network.state_dict().items()}
        counters = [key for key in tensors if key.endswith("num_batches_tracked")]
        for key in counters:
            del tensors[key]
        load_strictly(CNN, network, tensors)
        assert counters
        assert all(torch.equal(network.state_dict()[key], tensors[key]) for key in tensors)

    def test_an_original_checkpoint_is_converted_as_timm_does(self) -> None:
        # Swin's first releases stored index tables, and downsampling one stage earlier
        config = {
            "architecture": "swin_tiny_patch4_window7_224",
            "model_args": {"embed_dim": 12, "depths": [1, 1, 1, 1]},
        }
        network = timm_network("swin", config)
        expected = {key: torch.randn(value.shape) for key, value in network.state_dict().items()}
        original = {key: value for key, value in expected.items() if ".downsample." not in key}
        for stage in (1, 2, 3):
            for key, value in expected.items():
                if key.startswith(f"layers.{stage}.downsample."):
                    original[key.replace(f"layers.{stage}", f"layers.{stage - 1}")] = value
        original["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
        original |= {"head.weight": torch.zeros(9, 96), "head.bias": torch.zeros(9)}
        assert original.keys() - expected.keys() and expected.keys() - original.keys()
        load_strictly("swin", network, original, lambda: head_keys("swin", config))
        assert same(network, expected)


class TestClip:
    """CLIP in open_clip's layout."""

    def test_it_has_the_tensors_on_disk_and_needs_no_network(self, store: WeightStore) -> None:
        clip = store.weights(CLIP).clip()
        assert same(clip.network, load_file(store.root / CLIP / "open_clip_model.safetensors"))
        assert (clip.mean, clip.std) == ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
        tokens = clip.tokenizer(["a photo", "a damaged part"])
        # 49406 starts a text and 49407 ends it; "a" is 320 and "photo" 1125 in CLIP's vocabulary
        assert tokens.shape == (2, 77)
        assert tokens[0, :5].tolist() == [49406, 320, 1125, 49407, 0]
        with torch.inference_mode():
            assert clip.network.encode_image(torch.rand(1, 3, 120, 120)).shape == (1, 16)
            assert clip.network.encode_text(tokens).shape == (2, 16)

    def test_the_activation_is_that_of_the_configuration(self) -> None:
        quick = {"model_cfg": {**CLIP_CONFIG["model_cfg"], "quick_gelu": True}}
        torch.manual_seed(0)
        plain, fast = clip_network("plain", CLIP_CONFIG), clip_network("quick", quick)
        fast.load_state_dict(plain.state_dict())
        kinds = [
            {type(m).__name__ for m in network.modules() if "GELU" in type(m).__name__} for network in (plain, fast)
        ]
        assert kinds == [{"GELU"}, {"QuickGELU"}]
        image = torch.rand(1, 3, 120, 120)
        with torch.inference_mode():
            assert not torch.allclose(plain.encode_image(image), fast.encode_image(image))

    def test_without_a_normalisation_it_is_openais(self, tmp_path: Path) -> None:
        write_weights(tmp_path / "own", "open_clip", {"model_cfg": CLIP_CONFIG["model_cfg"]})
        store = WeightStore(tmp_path / "store")
        bring(store, "own", tmp_path / "own")
        import open_clip

        assert store.weights("own").mean == open_clip.OPENAI_DATASET_MEAN
        assert store.weights("own").std == open_clip.OPENAI_DATASET_STD

    def test_missing_tensors_are_refused(self, store: WeightStore, tmp_path: Path) -> None:
        own = Path(shutil.copytree(store.root / CLIP, tmp_path / "own"))
        tensors = load_file(own / "open_clip_model.safetensors")
        del tensors["visual.proj"]
        save_file(tensors, own / "open_clip_model.safetensors")
        with pytest.raises(
            WeightsError, match=r"the weights do not fit CLIP, which expects 50 tensors: visual\.proj missing"
        ):
            bring(store, "own", own)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"custom_text": True}, "towers and the tokenizer of open_clip itself, got custom_text"),
            ({"text_cfg": {"hf_model_name": "roberta-base"}}, "got text_cfg.hf_model_name"),
            ({"vision_cfg": {"timm_model_name": "resnet50"}}, "got vision_cfg.timm_model_name"),
            ({"text_cfg": {"hf_tokenizer_name": "x"}}, "got text_cfg.hf_tokenizer_name"),
            ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}}, "only clean, got bpe_path"),
            ({"text_cfg": {"vocab_size": 1000}}, "vocab_size of 49408, open_clip's own, got 1000"),
            ({"qkick_gelu": True}, "expected in model_cfg some of .*quick_gelu.* got qkick_gelu"),
            ({"vision_cfg": {"no_such": 1}}, "open_clip cannot build this model_cfg: .*no_such"),
        ],
    )
    def test_a_foreign_configuration_is_refused(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        model = {
            key: {**value, **change.get(key, {})} if isinstance(value, dict) else value
            for key, value in ({key: {} for key in change if key.endswith("_cfg")} | CLIP_CONFIG["model_cfg"]).items()
        } | {key: value for key, value in change.items() if not key.endswith("_cfg")}
        config = {"model_cfg": model}
        small = {"model_cfg": CLIP_CONFIG["model_cfg"]}
        if model["text_cfg"]["vocab_size"] != 49408:
            small = {"model_cfg": {**small["model_cfg"], "text_cfg": model["text_cfg"]}}
        write_weights(tmp_path / "own", "open_clip", small)
        (tmp_path / "own/open_clip_config.json").write_text(json.dumps(config))
        with pytest.raises(WeightsError, match=message):
            bring(WeightStore(tmp_path / "store"), "own", tmp_path / "own")

    def test_one_kind_is_not_taken_for_the_other(self, store: WeightStore) -> None:
        with pytest.raises(WeightsError, match="tiny-clip is a CLIP, expected a plain backbone"):
            store.weights(CLIP).network()
        with pytest.raises(WeightsError, match="tiny-vit is no CLIP"):
            store.weights(VIT).clip()


class TestRandom:
    """NAME:random, the survey's comparison."""

    def test_a_known_network_needs_no_weights(self, tmp_path: Path) -> None:
        weights = WeightStore(tmp_path / "nowhere").weights("efficientvit-b0:random")
        assert weights.describe() == "efficientvit-b0: random initialisation, for experiments only (seed 0)"
        assert (weights.multiple, weights.mean) == (32, (0.485, 0.456, 0.406))
        assert type(weights.network()).__name__ == "EfficientVit"
        assert not (tmp_path / "nowhere").exists()

    def test_the_seed_makes_the_weights(self, store: WeightStore) -> None:
        def of(name: str) -> dict[str, Tensor]:
            return store.weights(name).network().state_dict()

        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = of(f"{VIT}:random")
        assert torch.equal(torch.get_rng_state(), state)
        key = "blocks.0.mlp.fc1.weight"
        torch.manual_seed(2)
        assert torch.equal(of(f"{VIT}:random-0")[key], first[key])
        assert not torch.equal(of(f"{VIT}:random-1")[key], first[key])

    def test_a_clip_can_be_random_too(self, store: WeightStore) -> None:
        clip = store.weights(f"{CLIP}:random-3").clip()
        assert (clip.mean, clip.std) == ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
        trained = load_file(store.root / CLIP / "open_clip_model.safetensors")
        assert not torch.equal(clip.network.state_dict()["visual.proj"], trained["visual.proj"])

    def test_it_has_no_tensors_on_disk(self, store: WeightStore) -> None:
        with pytest.raises(WeightsError, match="has no tensors on disk"):
            store.weights(f"{VIT}:random").tensors()

    def test_the_shipped_one_is_only_as_it_ships(self, store: WeightStore) -> None:
        with pytest.raises(WeightsError, match=r"embedded in .*: it ships with the package and is in no store"):
            store.weights("embedded:random")

    def test_an_unknown_one_is_as_unknown_as_without(self, store: WeightStore) -> None:
        with pytest.raises(WeightsError, match="no weights called mine"):
            store.weights("mine:random")
