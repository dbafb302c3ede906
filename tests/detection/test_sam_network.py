"""Checkpoints of Segment Anything: which network they are of is read from them, and every tensor must fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from tiny_sam import NAME, TINY, tiny_sam, write_sam

from explainvad.detection import sam_network as sam_network_module
from explainvad.detection.catalogue import CATALOGUE
from explainvad.detection.mobile_sam import MobileEncoder
from explainvad.detection.sam_checkpoint import open_sam, sam_checkpoint
from explainvad.detection.sam_network import PUBLISHED, SamShape, empty_sam, sam_network, sam_shape
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.detection.weights_lock import LOCK, locked_file
from explainvad.errors import IntegrityError, WeightsError

KEY = "image_encoder.neck.0.weight"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_segment_anythings_own(name: str) -> None:
    with torch.device("meta"):  # shapes only
        theirs, ours = sam_model_registry[name]().state_dict(), empty_sam(PUBLISHED[name]).state_dict()
    assert {key: t.shape for key, t in ours.items()} == {key: t.shape for key, t in theirs.items()}
    shape = sam_shape("any", theirs)
    assert shape == PUBLISHED[name] and shape.name == name
    entry = CATALOGUE[name.replace("vit_", "sam-vit-")]
    assert entry.architecture == name
    assert sum(t.numel() * 4 for t in theirs.values()) / 1e6 == pytest.approx(entry.megabytes, abs=0.5)


def test_settings_that_no_shape_tells_are_segment_anythings_own() -> None:
    with torch.device("meta"):
        theirs, ours = sam_model_registry["vit_b"](), empty_sam(PUBLISHED["vit_b"])
    for a, b in zip(theirs.image_encoder.blocks, ours.image_encoder.blocks, strict=True):
        assert (a.window_size, a.attn.num_heads, a.norm1.eps) == (b.window_size, b.attn.num_heads, b.norm1.eps)
    a, b = (network.mask_decoder.transformer.layers[0].self_attn for network in (theirs, ours))
    assert a.num_heads == b.num_heads
    assert theirs.mask_threshold == ours.mask_threshold
    buffers = tiny_sam()
    assert buffers.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert buffers.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors"])
def test_a_checkpoint_becomes_the_network_it_is_of(name: str, tmp_path: Path) -> None:
    opened = open_sam("", write_sam(tmp_path / name))
    assert opened.architecture == NAME and opened.source.startswith(f"{name}, sha256 ")
    assert not opened.network.training
    own = tiny_sam().state_dict()
    assert all(torch.equal(tensor, own[key]) for key, tensor in opened.network.state_dict().items())
    assert sam_checkpoint(tmp_path) == tmp_path / name  # a folder that holds it


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors"])
def test_a_checkpoint_is_read_once_and_its_sizes_are_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was hashed is what is loaded, also where the file is exchanged meanwhile."""
    path, other = write_sam(tmp_path / name, 0), write_sam(tmp_path / "other" / name, 1)
    own_read, own_shape, shapes = Path.read_bytes, sam_network_module.sam_shape, list[str]()

    def exchanged(self: Path) -> bytes:
        content = own_read(self)
        self.write_bytes(own_read(other))
        return content

    def counted(name: str, tensors: Mapping[str, torch.Tensor]) -> SamShape:
        shapes.append(name)
        return own_shape(name, tensors)

    sha256 = locked_file(path).sha256
    monkeypatch.setattr(Path, "read_bytes", exchanged)
    monkeypatch.setattr(sam_network_module, "sam_shape", counted)
    opened = open_sam("", path)
    assert opened.sha256 == sha256 != locked_file(path, afresh=True).sha256 and shapes == [name]
    key = "mask_decoder.mask_tokens.weight"
    assert torch.equal(opened.network.state_dict()[key], tiny_sam(0).state_dict()[key])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mask_decoder.iou_token.weight": None}, r"sam\.pth: .* mask_decoder\.iou_token\.weight missing"),
        ({"image_encoder.head.weight": torch.zeros(2)}, r"sam\.pth: .* image_encoder\.head\.weight left over"),
        ({"mask_decoder.iou_token.weight": torch.zeros(1, 31)}, r"expected mask_decoder\.iou_token\.weight of shape"),
        ({"image_encoder.pos_embed": None}, r"sam\.pth: expected a checkpoint of Segment Anything"),
        ({KEY: torch.zeros(())}, r"sam\.pth: expected a checkpoint of Segment Anything .* " + KEY.replace(".", r"\.")),
        ({"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(3, 5)}, r"sam\.pth: "),
    ],
)
def test_altered_keys_are_refused(changed: dict[str, torch.Tensor | None], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        open_sam("", write_sam(tmp_path / "sam.pth", **changed))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "was-run",)  # type: ignore[return-value]

    torch.save({"image_encoder.x": Evil()}, tmp_path / "sam.pth")
    with pytest.raises(WeightsError, match=r"sam\.pth was refused: expected a file of tensors"):
        open_sam("", tmp_path / "sam.pth")
    assert not (tmp_path / "was-run").exists()


def test_what_is_no_checkpoint_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    two = tmp_path / "two"
    for name in ("a.pth", "b.pth"):
        write_sam(two / name)
    for path in (tmp_path / "notes.txt", tmp_path / "nowhere", two):
        assert sam_checkpoint(path) is None
        with pytest.raises(WeightsError, match="there is no checkpoint of Segment Anything at"):
            open_sam("", path)
    with pytest.raises(WeightsError, match=r"cut\.safetensors: expected tensors in the format safetensors"):
        open_sam("", tmp_path / "cut.safetensors")


def test_the_store_takes_a_checkpoint_and_holds_it_to_the_lock(tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "store")
    locked = bring(store, "sam-own", write_sam(tmp_path / "checkpoint.pth"))
    assert locked.library == "segment_anything"
    folder = store.root / "sam-own"
    assert sorted(p.name for p in folder.iterdir()) == ["sam_config.json", "sam_model.safetensors"]
    assert bring(store, "sam-own", tmp_path / "checkpoint.pth") == locked  # the same bytes again
    with pytest.raises(IntegrityError, match="is not what"):
        bring(store, "sam-own", write_sam(tmp_path / "other.pth", seed=1))
    weights = store.weights("sam-own")
    assert sam_shape("own", weights.sam().state_dict()) == TINY
    for wrong in (weights.network, weights.clip):
        with pytest.raises(WeightsError, match="sam-own is"):
            wrong()
    (folder / "sam_config.json").write_text(json.dumps({"architecture": "vit_b"}))
    (store.root / LOCK).unlink()
    with pytest.raises(WeightsError, match="vit_b is what its configuration says, but its tensors are of vit_32x2"):
        bring(store, "sam-own", folder)


def test_a_known_name_is_kept_for_its_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="sam-vit-b is vit_b of segment_anything, got vit_32x2"):
        bring(WeightStore(tmp_path / "store"), "sam-vit-b", write_sam(tmp_path / "sam.pth"))
    assert not (tmp_path / "store" / "sam-vit-b").exists()


def test_weights_of_the_hub_go_by_the_names_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    frame = {"image_size": 64, "patch_size": 16}
    config = transformers.SamConfig(
        vision_config={
            **vision, **frame, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 64, "num_pos_feats": 16
        },
        prompt_encoder_config={"hidden_size": 32, **frame, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 8,
            "iou_head_hidden_dim": 32, "iou_head_depth": 3,
        },
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.SamModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.2)
    theirs.save_pretrained(tmp_path / "hub")
    store = WeightStore(tmp_path / "store")
    bring(store, "sam-hub", tmp_path / "hub")
    ours = store.weights("sam-hub").sam()
    assert sam_shape("hub", ours.state_dict()) == TINY

    # The same masks at the same prompt
    points, labels, box = (
        torch.tensor([[[10.0, 20.0], [40.0, 30.0]]]),
        torch.tensor([[1, 0]]),
        torch.tensor([[5.0, 6, 30, 40]]),
    )
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs(
            pixel_values=pixels, input_points=points[None], input_labels=labels[None], input_boxes=box[None]
        )
        sparse, dense = ours.prompt_encoder(points=(points, labels), boxes=box, masks=None)
        masks, quality = ours.mask_decoder(
            image_embeddings=ours.image_encoder(pixels),
            image_pe=ours.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    torch.testing.assert_close(masks, expected.pred_masks[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(quality, expected.iou_scores[0], rtol=1e-3, atol=1e-4)


def mobile_checkpoint() -> dict[str, torch.Tensor]:
    """A checkpoint by the names that MobileSAM's authors gave: downsampling ends a stage, and a classifier is left."""
    network = empty_sam(PUBLISHED["vit_b"], MobileEncoder())
    found = {}
    for key, value in network.state_dict().items():
        name = key
        if key.startswith("image_encoder."):
            name = name.replace(".stages.3.down", ".layers.2.down").replace(".stages.2.down", ".layers.1.down")
            name = name.replace(".stages.1.down", ".layers.0.down").replace(".stages.", ".layers.")
            name = name.replace("patch_embed.conv1", "patch_embed.seq.0").replace(
                "patch_embed.conv2", "patch_embed.seq.2"
            )
            name = name.replace(".conv.", ".c.")
        found[name] = value
    head = {"norm_head.weight": 320, "norm_head.bias": 320, "head.weight": 320_000, "head.bias": 1000}
    return found | {f"image_encoder.{name}": torch.zeros(size) for name, size in head.items()}


def test_a_mobile_sam_is_known_by_its_names_and_fits_strictly(tmp_path: Path) -> None:
    tensors = mobile_checkpoint()
    # As the authors' own class has them
    for key in (
        "layers.0.blocks.0.conv1.c.weight",
        "layers.1.blocks.0.attn.attention_biases",
        "layers.2.downsample.conv2.bn.running_var",
        "layers.3.blocks.1.local_conv.c.weight",
        "neck.3.bias",
        "head.weight",
    ):
        assert f"image_encoder.{key}" in tensors
    assert len([key for key in tensors if key.startswith("image_encoder.")]) == 302
    torch.save(tensors, tmp_path / "mobile_sam.pt")
    opened = open_sam("", tmp_path / "mobile_sam.pt")
    assert opened.architecture == "mobile"
    key = "layers.2.downsample.conv2.c.weight"
    loaded = opened.network.image_encoder.stages[3].downsample.conv2.conv.weight  # type: ignore[union-attr,index]
    assert torch.equal(loaded, tensors[f"image_encoder.{key}"])
    with torch.inference_mode():  # a sixteenth of a frame a place, as SAM's own
        assert opened.network.image_encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 256, 16, 16)  # type: ignore[operator]
    for changed in ({f"image_encoder.{key}": None}, {"image_encoder.layers.9.c.weight": torch.zeros(1)}):
        altered = {k: v for k, v in {**tensors, **changed}.items() if v is not None}
        with pytest.raises(WeightsError, match="mine: the weights do not fit Sam"):
            sam_network("mine", altered)


def test_untrained_networks_are_made_from_their_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(PUBLISHED, "vit_b", TINY)
    store = WeightStore(tmp_path)
    a, b, c = (open_sam(f"sam-vit-b:random{seed}", None, store) for seed in ("", "-0", "-1"))
    assert a.sha256 is None and "random initialisation" in a.source
    key = "mask_decoder.mask_tokens.weight"
    same, other = (torch.equal(a.network.state_dict()[key], n.network.state_dict()[key]) for n in (b, c))
    assert same and not other
    sam_network("again", a.network.state_dict())
