"""Other light and other things."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from patterned import pattern
from PIL import Image

from explainvad.detection.distillation.pictures import drawn, greyed, other_pictures, relit
from explainvad.errors import LotError

GREY = torch.full((1, 3, 4, 4), 0.4)
RED = torch.tensor([0.6, 0.2, 0.2])[None, :, None, None].expand(1, 3, 4, 4)


def luma(pixels: torch.Tensor) -> float:
    return float((pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).mean())


def test_light_changes_in_one_of_three_ways_by_a_fifth_at_most() -> None:
    ways = dict.fromkeys(("brightness", "contrast", "saturation"), 0)
    factors = []
    for seed in range(300):
        dark, light = 0.5 * RED, RED
        pixels = torch.cat((dark, light), dim=3)
        after = relit(pixels, torch.Generator().manual_seed(seed))
        ratio = after / pixels
        spread = (after[0, :, 0, 7] - after[0, :, 0, 0]) / (pixels[0, :, 0, 7] - pixels[0, :, 0, 0])
        if torch.allclose(ratio, ratio[0, 0, 0, 0].expand_as(ratio), atol=1e-5):
            ways["brightness"] += 1  # all values times a factor
        elif torch.allclose(spread, spread[:1].expand(3), atol=1e-5):
            ways["contrast"] += 1  # about the mean grey, which stays
            assert luma(after) == pytest.approx(luma(pixels), abs=1e-5)
        else:
            ways["saturation"] += 1  # about every pixel's own grey, which stays
            for column in (0, 7):
                assert luma(after[..., column : column + 1]) == pytest.approx(
                    luma(pixels[..., column : column + 1]), abs=1e-5
                )
        factors.append(float(spread[0]))
    assert min(ways.values()) > 70
    assert min(factors) >= 0.75 and max(factors) <= 1.25 and min(factors) < 0.85 and max(factors) > 1.15


def test_pixels_stay_on_the_unit_interval() -> None:
    pixels = torch.rand(1, 3, 8, 8).round()
    for seed in range(30):
        after = relit(pixels, torch.Generator().manual_seed(seed))
        assert float(after.min()) >= 0 and float(after.max()) <= 1


def test_nearly_a_third_is_shown_in_grey() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = 0
    for _ in range(400):
        seen = greyed(RED, generator)
        assert seen.shape == RED.shape
        if not torch.equal(seen, RED):
            grey += 1
            assert torch.allclose(seen, torch.tensor(luma(RED)).expand_as(seen))
    assert 0.23 < grey / 400 < 0.37


def test_each_frame_comes_up() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = [torch.tensor(i) for i in range(4)]
    assert {int(drawn(frames, generator)) for _ in range(60)} == {0, 1, 2, 3}


def test_pictures_of_other_things_are_read_at_twice_the_resolution(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(pattern(i, 40, 60)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    pictures, said = other_pictures(tmp_path, 32)
    assert [tuple(p.shape) for p in pictures] == [(3, 64, 96)] * 3 and pictures[0].dtype == torch.uint8
    assert said == "3 pictures of other things"


def test_a_folder_without_pictures_is_refused_and_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(LotError, match="none that can be read among 1"):
        other_pictures(tmp_path, 32)
    pictures, said = other_pictures(None, 32)
    assert not pictures and said.startswith("none:")
