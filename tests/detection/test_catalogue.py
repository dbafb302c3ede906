"""What the catalogue says of a backbone is what timm and open_clip say, and frames of its multiple fit."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from open_clip.pretrained import get_pretrained_cfg as clip_cfg

from explainvad.detection.backbone.network import MULTIPLE as EMBEDDED_MULTIPLE
from explainvad.detection.catalogue import CATALOGUE
from explainvad.detection.loading import clip_network
from explainvad.detection.weights import WeightStore

TIMM = [name for name, entry in CATALOGUE.items() if entry.library == "timm"]
CLIP = "clip-vit-b-16-plus-240"
AT_LEAST = {
    "embedded", "resnet-18", "wide-resnet-50-2", "vit-small", "swin-tiny", "dino-small", "dinov2-small",
    "dinov2-small-reg", "dinov2-base-reg", "dinov3-small", "mobilevit-s", "tiny-vit-5m", "efficientvit-b0", CLIP,
}  # fmt: skip
LARGE = {"wide-resnet-50-2", "dinov2-base-reg"}  # as small ones of their family, and slow


def megabytes(network: torch.nn.Module) -> float:
    return sum(t.numel() * t.element_size() for t in network.state_dict().values()) / 1e6


def test_the_names_that_profiles_and_papers_need_are_there() -> None:
    assert CATALOGUE.keys() >= AT_LEAST


@pytest.mark.parametrize("name", TIMM)
def test_timm_says_the_same(name: str) -> None:
    entry = CATALOGUE[name]
    assert entry.hub
    cfg = timm.get_pretrained_cfg(entry.hub.removeprefix("timm/"), allow_unregistered=False)
    assert cfg is not None
    assert cfg.hf_hub_id == entry.hub
    assert cfg.architecture == entry.architecture
    assert cfg.license == entry.licence.lower()
    with torch.device("meta"):
        hubs = timm.create_model(entry.architecture, num_classes=cfg.num_classes)
    assert megabytes(hubs) == pytest.approx(entry.megabytes, abs=0.5)


def test_open_clip_says_the_same() -> None:
    entry = CATALOGUE[CLIP]
    config = open_clip.get_model_config(entry.architecture)
    assert config["vision_cfg"]["patch_size"] == entry.multiple
    assert config["vision_cfg"]["image_size"] == 240
    # open_clip has one repository for both its epochs
    for tag in ("laion400m_e31", "laion400m_e32"):
        assert clip_cfg(entry.architecture, tag)["hf_hub"] == f"{entry.hub}/"
        assert not clip_cfg(entry.architecture, tag).get("quick_gelu", False)
    with torch.device("meta"):
        assert megabytes(clip_network(CLIP, {"model_cfg": config})) == pytest.approx(entry.megabytes, abs=0.5)


def test_the_shipped_one_is_described_as_it_is() -> None:
    entry = CATALOGUE["embedded"]
    path = files("explainvad.detection.backbone").joinpath("embedded.safetensors")
    assert isinstance(path, Path)
    assert path.stat().st_size / 1e6 == pytest.approx(entry.megabytes, abs=0.5)
    assert (entry.hub, entry.multiple) == (None, EMBEDDED_MULTIPLE)


@pytest.mark.parametrize("name", [name for name in TIMM if name not in LARGE])
def test_every_grid_covers_frames_of_the_multiple_exactly(name: str, tmp_path: Path) -> None:
    weights = WeightStore(tmp_path).weights(f"{name}:random")
    network = weights.network()
    rows, cols = 5 * weights.multiple, 8 * weights.multiple  # neither square, nor of the network's own size
    with torch.inference_mode():
        maps = network.forward_intermediates(torch.rand(1, 3, rows, cols), intermediates_only=True, output_fmt="NCHW")
    assert len(maps) == len(network.feature_info)
    for features, layer in zip(maps, network.feature_info, strict=True):
        stride = layer["reduction"]
        assert features.shape == (1, layer["num_chs"], rows // stride, cols // stride)
        assert features.isfinite().all()


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_ones_differ_from_small_ones_in_width_alone(name: str) -> None:
    entry = CATALOGUE[name]
    small = CATALOGUE[{"wide-resnet-50-2": "resnet-18", "dinov2-base-reg": "dinov2-small-reg"}[name]]
    assert (entry.multiple, dict(entry.model_args)) == (small.multiple, dict(small.model_args))


@pytest.mark.parametrize("name", ["vit-small", "dino-small", "dinov2-small"])
def test_positions_of_the_native_frame_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    network = WeightStore(tmp_path).weights(f"{name}:random").network()
    side = network.default_cfg["input_size"][-1]
    grid = side // network.patch_embed.patch_size[0]
    assert network.pos_embed.shape[1] - network.num_prefix_tokens == grid**2
    tokens = torch.zeros(1, grid, grid, network.embed_dim)
    network.cls_token.data.zero_()
    got = network._pos_embed(tokens)
    assert torch.equal(got, network.pos_embed)
