"""The encoder's tokens as features: unit length, over the whole image, seamless across windows."""

from __future__ import annotations

import pytest
import torch
from patterned import TINY, defective_picture, normal_pictures, pattern, picture

from explainvad.detection import backbones
from explainvad.detection.backbones import LAYERS, AutoencoderTokens
from explainvad.detection.reconstruction.masked import MaskedReconstruction
from explainvad.errors import NotFittedError


def test_tokens_cover_the_image_and_have_unit_length_by_layer(reconstruction: MaskedReconstruction) -> None:
    backbone = AutoencoderTokens(reconstruction)
    for height, width, grid in ((64, 64, (8, 8)), (20, 50, (2, 6)), (8, 8, (1, 1)), (128, 32, (8, 2))):
        features = backbone.features(picture(pattern(0, height, width)))
        assert features.shape == (len(LAYERS) * TINY.width, *grid)
        length = features.unflatten(0, (len(LAYERS), TINY.width)).norm(dim=1)
        torch.testing.assert_close(length, torch.ones_like(length))


def test_windows_blend_to_finite_tokens_near_those_of_one_window(
    reconstruction: MaskedReconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(pattern(0, 256, 400))
    whole = AutoencoderTokens(reconstruction).features(image)
    monkeypatch.setattr(backbones, "WINDOW", 48)
    blended = AutoencoderTokens(reconstruction).features(image)
    assert blended.shape == whole.shape
    assert torch.isfinite(blended).all()
    similarity = torch.nn.functional.cosine_similarity(blended, whole, dim=0)
    assert similarity.mean() > 0.8
    assert not torch.equal(blended, whole)


def test_tokens_tell_a_defect_from_the_pattern(reconstruction: MaskedReconstruction) -> None:
    backbone = AutoencoderTokens(reconstruction)
    normal, other = (backbone.features(image) for image in normal_pictures(2, first=100))
    bad = backbone.features(defective_picture(100))
    change = (bad - normal).norm(dim=0)
    assert change[3:5, 4:5].min() > 2 * (other - normal).norm(dim=0).mean()


def test_the_same_image_has_the_same_tokens(reconstruction: MaskedReconstruction) -> None:
    backbone = AutoencoderTokens(reconstruction)
    (image,) = normal_pictures(1)
    before = backbone.features(image)
    backbone.features(defective_picture(3))
    assert torch.equal(backbone.features(image), before)


def test_tokens_need_a_fitted_network() -> None:
    with pytest.raises(NotFittedError, match="before fit"):
        AutoencoderTokens(MaskedReconstruction(architecture=TINY)).features(normal_pictures(1)[0])
