"""The teacher: crops, descriptions of a backbone by hand, distillation, and channels of mean 0 and deviation 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from patterned import normal_pictures, picture
from small_networks import Colours, make_small
from torch import Tensor

from explainvad.detection.distillation.pdn import PatchDescription
from explainvad.detection.distillation.teacher import (
    backbone_description,
    channel_moments,
    distil,
    pixels_of,
    random_crop,
    standardise_channels,
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    torch.manual_seed(0)


def frames(count: int) -> list[Tensor]:
    return [torch.from_numpy(image.pixels).permute(2, 0, 1) for image in normal_pictures(count)]


@torch.no_grad()
def test_a_crops_descriptions_are_those_of_the_frame_there() -> None:
    network, frame = PatchDescription("small", 5), torch.rand(1, 3, 64, 92)
    whole, corners = network(frame), set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        pixels, cells = random_crop(frame, 44, generator)
        corners.add((pixels[0].start, pixels[1].start))
        torch.testing.assert_close(network(frame[..., *pixels]), whole[..., *cells], rtol=1e-4, atol=1e-5)
    rows, cols = ({corner[axis] for corner in corners} for axis in (0, 1))
    assert rows == set(range(0, 21, 4)) and {min(cols), max(cols)} == {0, 48}


def test_a_crop_is_no_larger_than_its_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    assert random_crop(torch.zeros(3, 64, 50), 128, generator)[0][1] == slice(0, 48)
    pixels, cells = random_crop(torch.zeros(3, 64, 64), 128, generator)
    assert pixels == (slice(0, 64), slice(0, 64)) and cells == (slice(0, 8), slice(0, 8))


def test_a_backbones_levels_become_neighbouring_means_on_the_grid_of_descriptions() -> None:
    image = normal_pictures(1)[0]
    found = backbone_description(Colours(), (2, 3), image, 3, (64, 64))
    fine, coarse = Colours().levels(image, (2, 3))
    coarse = torch.nn.functional.interpolate(coarse[None], size=(16, 16), mode="bilinear")[0]
    together = torch.cat((fine, coarse))  # red, green, blue, and twice their means
    means = torch.stack([together[i : i + 2].mean(0) for i in (0, 2, 4)])
    assert found.dtype == torch.float16 and found.shape == (3, 8, 8)
    torch.testing.assert_close(found.float(), means[:, 4:-4, 4:-4], rtol=1e-3, atol=1e-3)


def test_a_description_lies_where_its_patch_does() -> None:
    pixels = np.zeros((64, 96, 3), dtype=np.uint8)
    pixels[36:40, 60:64] = 255  # the cell in row 9 and column 15 of 16 x 24
    found = backbone_description(Colours(), (2, 3), picture(pixels), 6, (64, 96))
    assert found.shape == (6, 8, 16)
    assert np.unravel_index(int(found[:3].sum(0).argmax()), (8, 16)) == (5, 11)


def test_distilling_approaches_the_descriptions() -> None:
    seen = [
        (frame, backbone_description(Colours(), (2, 3), image, 4, (64, 64)))
        for frame, image in zip(frames(6), normal_pictures(6), strict=True)
    ]

    def error(steps: int) -> float:
        torch.manual_seed(1)
        teacher = PatchDescription("small", 4)
        generator = torch.Generator().manual_seed(2)
        found = distil(teacher, seen, side=48, steps=steps, device="cpu", generator=generator, progress=None)
        assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
        return found

    first, last = error(1), error(80)
    assert 0.8 < first < 1.5  # in variances of a channel
    assert last < 0.6 * first
    assert error(3) == error(3)


def test_channels_get_mean_0_and_deviation_1_over_all_frames() -> None:
    teacher, seen = PatchDescription("medium", 5).requires_grad_(False), frames(3)
    wide = torch.cat((seen[0], seen[1]), dim=2)  # counts as many places as it has
    standardise_channels(teacher, [*seen, wide], "cpu")
    answers = torch.cat([teacher(pixels_of(f, "cpu"))[0].flatten(1) for f in (*seen, wide)], dim=1)
    torch.testing.assert_close(answers.mean(1), torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(answers.std(1, unbiased=False), torch.ones(5), rtol=1e-3, atol=0)


def test_a_channel_that_never_changes_keeps_its_unit() -> None:
    maps = [torch.tensor([[[1.0, 2.0]], [[7.0, 7.0]]]), torch.tensor([[[6.0]], [[7.0]]])]
    mean, std = channel_moments(maps)
    assert mean.flatten().tolist() == [3.0, 7.0]
    assert std.flatten().tolist() == pytest.approx([(14 / 3) ** 0.5, 1.0])
