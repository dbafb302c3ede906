"""Every family answers as timm itself does, on grids over the whole image, in one pass, alone and in batches."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from families import FAMILIES, MEAN, STD, TOKENS, backbone_of, each_family, network_of, oblong, relative, weights_of
from patterned import picture
from torch import Tensor, nn

from explainvad.detection import frozen
from explainvad.detection.backbones import EMBEDDED, FINAL, Backbones, FrozenBackbone
from explainvad.detection.frames import resized
from explainvad.errors import UsageError, WeightsError
from explainvad.types import InspectionImage


def normalised(image: InspectionImage, size: tuple[int, int]) -> Tensor:
    """(1, 3, rows, columns), written out by hand."""
    frame = resized(image.pixels, size).double() / 255
    return torch.stack([(frame[c] - MEAN[c]) / STD[c] for c in range(3)])[None].float()


class Passes:
    """Counts how often a module of the network runs."""

    def __init__(self, module: Any) -> None:
        self.shapes: list[tuple[int, ...]] = []
        module.register_forward_hook(lambda _, given, __: self.shapes.append(tuple(given[0].shape)))


class TestFamilies:
    @each_family
    def test_grids_cover_the_whole_image(self, name: str) -> None:
        family, backbone, image = FAMILIES[name], backbone_of(name), oblong()
        rows, cols = backbone.size(image)
        assert (rows % family.multiple, cols % family.multiple) == (0, 0)
        assert abs(rows - 96) <= family.multiple / 2 and abs(cols - 96 * 149 / 101) <= family.multiple / 2
        assert backbone.depth == len(family.strides)
        levels = backbone.levels(image, [*range(backbone.depth), FINAL])
        expected = [
            (width, rows // stride, cols // stride)
            for width, stride in zip(
                (*family.widths, family.widths[-1]), (*family.strides, family.strides[-1]), strict=True
            )
        ]
        assert [tuple(level.shape) for level in levels] == expected
        assert all(level.dtype == torch.float32 and level.isfinite().all() for level in levels)

    @each_family
    def test_features_are_those_of_timm(self, name: str) -> None:
        backbone, image, network = backbone_of(name), oblong(), network_of(name)
        frame = normalised(image, backbone.size(image))
        with torch.no_grad():
            final, maps = network.forward_intermediates(frame)  # type: ignore[operator]
        *levels, last = backbone.levels(image, [*range(backbone.depth), FINAL])
        for level, expected in zip(levels, maps, strict=True):
            torch.testing.assert_close(level, expected[0], rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        if name in TOKENS:
            final = final[0, FAMILIES[name].prefix :].T.reshape(last.shape)
        elif name == "Swin":
            final = final[0].permute(2, 0, 1)
        else:
            final = final[0]
        torch.testing.assert_close(last, final, rtol=1e-5, atol=1e-5 * float(final.abs().max()))
        assert relative(last, levels[-1]) > 0.05 or name not in (*TOKENS, "Swin")

    @each_family
    @pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
    def test_a_cell_is_where_its_pixels_are(self, name: str, corner: tuple[int, int]) -> None:
        backbone, image = backbone_of(name), oblong()
        pixels = image.pixels.copy()
        y, x = (slice(-14, None) if side else slice(0, 14) for side in corner)
        pixels[y, x] = 255 - pixels[y, x]
        (before,), (after,) = backbone.levels(image, [0]), backbone.levels(picture(pixels), [0])
        change = (after - before).norm(dim=0)
        row, col = divmod(int(change.argmax()), change.shape[1])
        near = max(1, 16 // FAMILIES[name].strides[0])
        assert min(row, change.shape[0] - 1 - row) < near and min(col, change.shape[1] - 1 - col) < near
        assert (row > change.shape[0] / 2, col > change.shape[1] / 2) == (bool(corner[0]), bool(corner[1]))

    @each_family
    def test_the_same_image_gives_the_same_numbers(self, name: str) -> None:
        image = oblong()
        first, second = (backbone_of(name).levels(image, [0, FINAL]) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    @each_family
    def test_bfloat16_is_what_autocast_makes_of_it(self, name: str) -> None:
        image, layers = oblong(), [0, FINAL]
        backbone = backbone_of(name, bf16=True)
        got = backbone.levels(image, layers)
        plain = backbone_of(name)
        frame = plain.frame(image)[None].contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = plain.network.forward_intermediates(frame, intermediates_only=True)  # type: ignore[operator]
        assert torch.equal(got[0], autocast[0][0].float())
        assert all(level.dtype == torch.float32 for level in got)
        for a, b in zip(got, plain.levels(image, layers), strict=True):
            assert 0 < relative(a, b) < 0.05
        assert "bfloat16" in backbone.facts["precision"] and plain.facts["precision"] == "float32"


class TestOnePass:
    def test_serves_however_many_scorers_and_layers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backbone, image = FrozenBackbone(weights_of("ResNet-18").network(), weights_of("ResNet-18"), 64), oblong()
        passes, resizes = Passes(backbone.network.conv1), []
        monkeypatch.setattr(frozen, "resized", lambda *given: resizes.append(given) or resized(*given))
        for layers in ([2, 3], [1], [FINAL, 2], [4]):
            backbone.request(layers)
        first = backbone.levels(image, [2, 3])
        for layers in ([1], [FINAL, 2], [4]):
            backbone.levels(image, layers)
        assert len(passes.shapes) == len(resizes) == 1
        assert backbone.levels(image, [2])[0] is first[0]
        backbone.levels(oblong(1), [2])
        assert len(passes.shapes) == 2

    def test_stops_at_the_deepest_layer_asked_for(self) -> None:
        backbone = FrozenBackbone(weights_of("ResNet-18").network(), weights_of("ResNet-18"), 64)
        deeper = Passes(backbone.network.layer4)
        backbone.levels(oblong(), [1, 3])
        assert not deeper.shapes

    def test_a_layer_that_was_not_requested_is_still_found(self) -> None:
        backbone, image = backbone_of("ViT"), oblong()
        (first,) = backbone.levels(image, [0])
        again, other = backbone.levels(image, [0, 2])
        assert torch.equal(first, again) and not torch.equal(first, other)

    def test_an_image_that_was_seen_keeps_its_address(self) -> None:
        """Images are known by their id; one that is decoded later must not come to lie where this one lay."""
        backbone, image = backbone_of("ResNet-18", 64), oblong(0, 64, 64)
        backbone.levels(image, [1])
        held = sys.getrefcount(image)
        backbone.levels(oblong(1, 64, 64), [1])
        assert sys.getrefcount(image) == held - 1


class TestBatches:
    @pytest.mark.parametrize("name", ["ResNet-18", "DINOv2 with registers", "DINOv3", "Swin", "TinyViT"])
    def test_give_the_numbers_of_single_images(self, name: str) -> None:
        images = [oblong(0), oblong(1), oblong(2, 149, 101), oblong(3)]
        together, alone = backbone_of(name), backbone_of(name)
        together.request([0, FINAL])
        together.see(images)
        for image in images:
            for a, b in zip(together.levels(image, [0, FINAL]), alone.levels(image, [0, FINAL]), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))

    def test_take_a_pass_for_each_size(self) -> None:
        backbone = FrozenBackbone(weights_of("ResNet-18").network(), weights_of("ResNet-18"), 64)
        passes = Passes(backbone.network.conv1)
        images = [oblong(0, 64, 96), oblong(1, 96, 64), oblong(2, 64, 97), oblong(3, 64, 96)]
        backbone.request([2])
        backbone.see(images)
        for image in images:
            backbone.levels(image, [2])
        assert passes.shapes == [(3, 3, 64, 96), (1, 3, 96, 64)]

    def test_forget_what_was_seen_before(self) -> None:
        backbone = backbone_of("ResNet-18", 64)
        backbone.request([2])
        for seed in range(5):
            backbone.see([oblong(seed), oblong(seed + 5)])
        assert len(backbone._seen) == 2


class TestTraining:
    @pytest.mark.parametrize("name", ["ResNet-18", "ViT", EMBEDDED])
    def test_networks_learn_on_features_even_after_scoring(self, name: str, backbones: Backbones) -> None:
        extractor = backbones.extractor(EMBEDDED, 64) if name == EMBEDDED else backbone_of(name)
        image = oblong()
        with torch.inference_mode():  # as scorers do
            extractor.levels(image, [1])
        (level,) = extractor.levels(image, [1])
        layer = nn.Conv2d(level.shape[0], 2, 1)
        layer(level[None]).sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0

    def test_nothing_of_the_backbone_learns(self) -> None:
        backbone = backbone_of("ViT")
        assert not any(p.requires_grad for p in backbone.network.parameters()) and not backbone.network.training


class TestErrors:
    @pytest.mark.parametrize("layer", [-2, 5])
    def test_a_layer_that_is_not_there(self, layer: int) -> None:
        with pytest.raises(UsageError, match=rf"ResNet-18 has layers 0 to 4, and -1 .* got {layer};"):
            backbone_of("ResNet-18").request([1, layer])

    def test_seeing_before_anything_was_asked_for(self) -> None:
        with pytest.raises(UsageError, match="call request first"):
            backbone_of("ResNet-18").see([oblong()])

    @pytest.mark.parametrize(("name", "argument"), [("ViT", "dynamic_img_size"), ("Swin", "strict_img_size")])
    def test_a_network_of_one_size_is_refused(self, name: str, argument: str) -> None:
        arguments = {k: v for k, v in FAMILIES[name].arguments.items() if k != argument}
        network = timm.create_model(FAMILIES[name].architecture, num_classes=0, **arguments)
        with pytest.raises(WeightsError, match=f"{name} takes images of one size only.*{argument}"):
            FrozenBackbone(network, weights_of(name), 64)

    def test_a_multiple_that_a_stride_does_not_divide(self) -> None:
        backbone = FrozenBackbone(network_of("ResNet-18"), weights_of("ResNet-18", multiple=24), 72)
        backbone.levels(oblong(0, 72, 120), [1, 2])
        with pytest.raises(WeightsError, match=r"layer 3 of ResNet-18 divides 72 x 120 px into 5 x 8 cells"):
            backbone.levels(oblong(0, 72, 120), [3])


class TestCompile:
    @pytest.fixture(autouse=True)
    def _afresh(self) -> Iterator[None]:
        yield
        torch._dynamo.reset()

    def test_gives_the_same_features_at_every_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Traced by torch's compiler, but run as it is: to make code takes a minute."""
        graphs: list[int] = []

        def count(graph: Any, _: Any) -> Any:
            graphs.append(1)
            return graph.forward

        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count))
        compiled, plain = backbone_of("ResNet-18", 64, compile=True), backbone_of("ResNet-18", 64)
        for image in (oblong(0, 64, 64), oblong(1, 64, 96), oblong(2, 96, 64), oblong(3, 64, 128)):
            for a, b in zip(compiled.levels(image, [1, 3]), plain.levels(image, [1, 3]), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert graphs

    def test_a_failure_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(graph: Any, _: Any) -> Any:
            raise RuntimeError("no C++ compiler")

        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=fail))
        with pytest.raises(UsageError, match=r"ResNet-18 could not be compiled .*no C\+\+ compiler.*compile = false"):
            backbone_of("ResNet-18", 64, compile=True).levels(oblong(), [1])

    def test_too_many_sizes_are_not_run_uncompiled_without_a_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=lambda graph, _: graph.forward))
        monkeypatch.setattr(frozen, "COMPILED_SIZES", 1)
        backbone = backbone_of("ViT", 64, compile=True)
        backbone.levels(oblong(0, 64, 64), [1])
        with pytest.raises(UsageError, match="frames of few sizes"):
            backbone.levels(oblong(0, 64, 96), [1])
