"""The encoder answers as open_clip does, and a window as open_clip would on its patches alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patterned import pattern, picture
from tiny_models import CLIP, CLIP_CONFIG, tiny_backbones, write_weights
from torch import Tensor

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.encoder import ClipEncoder
from explainvad.detection.clip.window_maps import window_index
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.errors import ConfigError, WeightsError

PHRASES = ["a photo of a flange.", "a blurry close-up photo of the badly damaged flange with a crack.", "flange"]


@pytest.fixture
def encoder(backbones: Backbones) -> ClipEncoder:
    return ClipEncoder.of(backbones, CLIP)


@pytest.fixture
def network(backbones: Backbones) -> Any:
    return backbones.weights(CLIP).clip().network.requires_grad_(False)


@pytest.fixture(scope="module")
def squares() -> Tensor:
    return torch.randn(5, 3, 120, 120, generator=torch.Generator().manual_seed(0))


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def test_whole_images_and_their_patches_are_those_of_open_clip(
    encoder: ClipEncoder, network: Any, squares: Tensor
) -> None:
    network.visual.output_tokens = True
    pooled, tokens = network.visual(squares)
    for scales in ((), (2, 3)):
        encoding = encoder.encode(squares, scales)
        torch.testing.assert_close(encoding.image, unit(pooled), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoding.tokens, unit(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_window_is_what_the_transformer_says_of_its_patches_and_the_class_token(
    encoder: ClipEncoder, network: Any, squares: Tensor, k: int
) -> None:
    visual = network.visual
    patches = visual.conv1(squares).flatten(2).transpose(1, 2)
    x = torch.cat((visual.class_embedding.expand(5, 1, -1), patches), dim=1) + visual.positional_embedding
    windows = encoder.encode(squares, (k,)).windows[k]
    assert windows.shape == (5, (16 - k) ** 2, 16)
    for w, index in enumerate(window_index(15, k)):
        if w % 7 == 0:
            alone = visual.transformer(visual.ln_pre(x[:, [0, *(1 + index).tolist()]]))
            expected = unit(visual.ln_post(alone[:, 0]) @ visual.proj)
            torch.testing.assert_close(windows[:, w], expected, atol=1e-5, rtol=1e-5)


def test_a_batch_is_its_images_one_by_one(encoder: ClipEncoder, squares: Tensor) -> None:
    together = encoder.encode(squares, (2, 3))
    for i in range(len(squares)):
        alone = encoder.encode(squares[i : i + 1], (2, 3))
        torch.testing.assert_close(together.image[i], alone.image[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together.tokens[i], alone.tokens[0], atol=1e-6, rtol=1e-5)
        for k in (2, 3):
            torch.testing.assert_close(together.windows[k][i], alone.windows[k][0], atol=1e-6, rtol=1e-5)


def test_texts_are_those_of_open_clip_at_full_length(encoder: ClipEncoder, network: Any) -> None:
    expected = unit(network.encode_text(encoder.tokenizer(PHRASES)))
    torch.testing.assert_close(encoder.texts(PHRASES), expected, atol=1e-6, rtol=1e-5)


def test_many_texts_are_each_as_alone(encoder: ClipEncoder) -> None:
    many = [f"a photo of part {i}{' and a crack' * (i % 3)}" for i in range(70)]
    together = encoder.texts(many)
    assert together.shape == (70, 16)
    for i in (0, 63, 64, 69):
        torch.testing.assert_close(together[i], encoder.texts([many[i]])[0], atol=1e-6, rtol=1e-5)


def test_a_text_that_clip_would_cut_is_refused(encoder: ClipEncoder) -> None:
    assert len(encoder.texts(["metal " * 75])) == 1
    with pytest.raises(ConfigError, match="may have 77 tokens, got 78: shorten 'metal metal"):
        encoder.texts(["metal " * 76])


@pytest.mark.parametrize(
    ("shape", "size", "columns"),
    [
        ((120, 120), (120, 120), [0]),
        ((900, 900), (120, 120), [0]),
        ((30, 30), (120, 120), [0]),
        ((60, 90), (120, 176), [0, 7]),  # 22.5 patches, to the even one
        ((60, 83), (120, 168), [0, 6]),  # 20.75 patches
        ((200, 1000), (120, 600), [0, 10, 20, 30, 40, 50, 60]),
    ],
)
def test_squares_cover_an_image_of_any_shape(
    encoder: ClipEncoder, shape: tuple[int, int], size: tuple[int, int], columns: list[int]
) -> None:
    for height, width in (shape, shape[::-1]):
        image = picture(pattern(0, height, width))
        turned = height > width
        assert encoder.size(image) == (size[::-1] if turned else size)
        places = encoder.places(image)
        starts = [place[0 if turned else 1].start for place in places]
        assert len(places) == len(columns)
        assert starts[0] == 0 and starts[-1] * 8 + 120 == size[1]
        assert max(np.diff(starts), default=0) <= 11  # neighbours share a quarter of their 15 patches
        assert encoder.squares(image).shape == (len(places), 3, 120, 120)


def test_squares_hold_the_pixels_at_their_places_normalised(encoder: ClipEncoder) -> None:
    pixels = pattern(1, 120, 240)
    squares = encoder.squares(picture(pixels))
    for square, (_, x) in zip(squares, encoder.places(picture(pixels)), strict=True):
        cut = pixels[:, x.start * 8 : x.stop * 8] / 255
        expected = (cut - np.array([0.48, 0.46, 0.41])) / np.array([0.27, 0.26, 0.28])
        np.testing.assert_allclose(square.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_the_last_image_is_seen_once(encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(pattern(0))
    first = encoder.see(image, (2,))
    assert encoder.see(image, (2,)) is first
    assert set(encoder.see(image, (3,)).windows) == {3}
    assert encoder.see(picture(pattern(0)), (2,)) is not first


def test_scorers_of_one_name_share_the_encoder_and_its_weights_are_noted(backbones: Backbones) -> None:
    assert ClipEncoder.of(backbones, CLIP) is ClipEncoder.of(backbones, CLIP)
    assert CLIP in backbones.used()


def test_bfloat16_says_nearly_the_same(encoder: ClipEncoder, weight_store: Path, squares: Tensor) -> None:
    half = ClipEncoder.of(Backbones(WeightStore(weight_store), bf16=True), CLIP)
    full = encoder.encode(squares, (2, 3))
    found = half.encode(squares, (2, 3))
    assert found.image.dtype == torch.float32
    for a, b in ((full.image, found.image), (full.tokens, found.tokens), (full.windows[2], found.windows[2])):
        cosine = (a * b).sum(-1)
        assert cosine.min() > 0.999 and cosine.min() < 1 - 1e-7
    assert (encoder.texts(PHRASES) * half.texts(PHRASES)).sum(1).min() > 0.999


def test_another_kind_of_tower_is_refused(tmp_path: Path) -> None:
    vision = {**CLIP_CONFIG["model_cfg"]["vision_cfg"], "pool_type": "avg"}
    write_weights(
        tmp_path / "w" / "odd", "open_clip", {"model_cfg": {**CLIP_CONFIG["model_cfg"], "vision_cfg": vision}}
    )
    bring(WeightStore(tmp_path / "w"), "odd", tmp_path / "w" / "odd")
    with pytest.raises(WeightsError, match="odd: expected a vision transformer that answers with its class token"):
        ClipEncoder.of(tiny_backbones(tmp_path / "w"), "odd")


def test_other_weights_are_refused(backbones: Backbones) -> None:
    with pytest.raises(WeightsError, match="no weights called nothing"):
        ClipEncoder.of(backbones, "nothing")
