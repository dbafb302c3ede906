"""What all scorers on pixels share, seen on a network that knows a single colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.frames import gaussian_blur, to_frame, top_mean
from explainvad.detection.reconstruction import pixels as module
from explainvad.detection.reconstruction.pixels import USUAL, PixelOptions, PixelReconstruction
from explainvad.errors import NotFittedError
from explainvad.types import InspectionImage


class OneColour(nn.Module):
    """x̂ is the same everywhere, whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.randn(3) * 0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.colour[:, None, None].expand(pixels.shape)


class OneColourScorer(PixelReconstruction[PixelOptions]):
    name, summary, source = "one-colour", "Knows one colour", "nobody"
    options_type = PixelOptions
    stride = 8

    def build(self) -> OneColour:
        return OneColour()


class Family(OneColourScorer):
    """Two members: the second one's colour is 0.5 brighter."""

    def rebuild(self, frame: Tensor) -> tuple[Tensor, dict[str, NDArray[Any]]]:
        one = super().rebuild(frame)[0]
        return torch.cat((one, one + 0.5)), {"more": np.ones(2)}


def scorer(backbones: Backbones, of: type[OneColourScorer] = OneColourScorer, **options: Any) -> OneColourScorer:
    return of(
        PixelOptions(**{"resolution": 64, "side": 32, "steps": 5, "batch": 3, "learning_rate": 0.05} | options),
        backbones,
    )


def grey(level: int, height: int = 64, width: int = 64) -> InspectionImage:
    return picture(np.full((height, width, 3), level, np.uint8))


# --- A score


def test_it_learns_a_constant_picture_and_measures_another_by_hand(backbones: Backbones) -> None:
    one = scorer(backbones, steps=200, usual=False)
    one.fit([grey(51)], 0)  # -0.6 on -1 to 1
    torch.testing.assert_close(one.network.colour.data, torch.full((3,), -0.6), atol=2e-3, rtol=0)
    (score,) = one.score([grey(102, 50, 90)])  # -0.2
    np.testing.assert_allclose(score.anomaly_map, 0.16, atol=2e-3)
    assert score.value == pytest.approx(0.16, abs=2e-3)
    assert score.anomaly_map.shape == (50, 90) and score.anomaly_map.dtype == np.float32
    assert (np.abs(score.evidence["rebuilt"].astype(int) - 51) <= 1).all()
    assert score.scorer == "one-colour" and not score.members.size


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 50), (9, 23), (16, 40), (131, 70)])
@pytest.mark.parametrize("residual", ["squared", "absolute", "ssim", "gradient"])
def test_a_score_is_of_the_blurred_residual(height: int, width: int, residual: str, backbones: Backbones) -> None:
    one = scorer(backbones, residual=residual, sigma=1.5, top=0.2, usual=False)
    one.fit(normal_pictures(2), 0)
    image = picture(pattern(3, height, width))
    (score,) = one.score([image])
    frame = one._pixels(image).float() / 127.5 - 1
    assert min(frame.shape[1:]) >= 56 and not any(side % 8 for side in frame.shape[1:])
    rebuilt = one.network.colour[:, None, None].expand(frame.shape)
    smooth = gaussian_blur(module.RESIDUALS[residual](frame, rebuilt), 1.5, cut=4.0)
    np.testing.assert_allclose(score.anomaly_map, to_frame(smooth, height, width), atol=1e-6)
    assert score.value == pytest.approx(top_mean(smooth, 0.2))
    assert score.evidence["rebuilt"].shape == (*frame.shape[1:], 3)


def test_the_usual_residual_by_hand(backbones: Backbones) -> None:
    one = scorer(backbones, sigma=0)
    one.fit([grey(51), grey(102)], 0)
    colour = one.network.colour
    low, high = (float((colour - level / 127.5 + 1).square().mean()) for level in (51, 102))
    mean, spread = one.arrays[USUAL]
    deviation = abs(high - low) / 2
    torch.testing.assert_close(mean, torch.full_like(mean, (low + high) / 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(spread, torch.full_like(spread, 1.5 * deviation), atol=1e-4, rtol=0)
    for score, sign in zip(one.score([grey(51), grey(102)]), np.sign([low - high, high - low]), strict=True):
        np.testing.assert_allclose(score.anomaly_map, sign / 1.5, atol=1e-2)


def test_what_is_usual_at_a_place_counts_less_there_than_elsewhere(backbones: Backbones) -> None:
    def half_noisy(seed: int) -> NDArray[np.uint8]:
        pixels = np.full((64, 64, 3), 128, np.uint8)
        pixels[:, :32] = np.random.default_rng(seed).integers(0, 256, (64, 32, 3))
        return pixels

    raw, judged = (scorer(backbones, steps=100, sigma=1, usual=usual) for usual in (False, True))
    images = [picture(half_noisy(seed)) for seed in range(6)]
    pixels = half_noisy(9)
    pixels[20:30, 44:54] = 60
    for one in (raw, judged):
        one.fit(images, 0)
    worst = [np.unravel_index(s.score([picture(pixels)])[0].anomaly_map.argmax(), (64, 64)) for s in (raw, judged)]
    assert worst[0][1] < 34  # the noise
    assert 18 <= worst[1][0] < 32 and 42 <= worst[1][1] < 56  # the defect
    assert judged.score([picture(pixels)])[0].value > 3 * judged.score([picture(half_noisy(10))])[0].value


def test_members_are_reconstructions_and_the_map_is_their_mean(backbones: Backbones) -> None:
    one = scorer(backbones, Family, usual=False, sigma=0, top=1.0)
    one.fit([grey(100)], 0)
    (score,) = one.score([grey(128, 64, 96)])
    colour = one.network.colour
    each = [float((128 / 127.5 - 1 - colour - more).square().mean()) for more in (0, 0.5)]
    np.testing.assert_allclose(score.members, each, atol=1e-5)
    assert score.member_maps.shape == (2, 8, 12) and score.member_maps.dtype == np.float32
    np.testing.assert_allclose(score.member_maps, np.array(each)[:, None, None] * np.ones((8, 12)), atol=1e-5)
    np.testing.assert_allclose(score.anomaly_map, np.mean(each), atol=1e-5)
    assert score.value == pytest.approx(np.mean(each), abs=1e-5)
    assert score.evidence["more"].tolist() == [1, 1]


def test_the_score_of_an_image_does_not_depend_on_its_neighbours(backbones: Backbones) -> None:
    one = scorer(backbones)
    one.fit(normal_pictures(3), 0)
    image, bad = picture(pattern(5, 40, 90)), defective_picture(6)
    (alone,) = one.score([image])
    together = one.score([bad, image, bad])[1]
    assert together.value == alone.value and np.array_equal(together.anomaly_map, alone.anomaly_map)


# --- Crops


def test_crops_are_parts_of_their_frames_and_reach_every_corner(backbones: Backbones) -> None:
    one = scorer(backbones, side=39, batch=200)
    frames = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((40, 40), (48, 72))]
    crops = one._crops(frames, torch.Generator().manual_seed(0))
    assert crops.pixels.shape == (200, 3, 32, 32)
    by_size = {tuple(frame.shape[1:]): frame for frame in frames}
    for pixels, (top, left), size in zip(crops.pixels, crops.corners, crops.frames, strict=True):
        part = by_size[size][:, top : top + 32, left : left + 32].float() / 127.5 - 1
        assert torch.equal(pixels, part)
    found = {(size, corner) for size, corner in zip(crops.frames, crops.corners, strict=True)}
    assert {size for size, _ in found} == set(by_size)
    for axis, furthest in ((0, 8), (1, 8)):
        assert {corner[axis] for size, corner in found if size == (40, 40)} == set(range(furthest + 1))
    assert max(corner[1] for size, corner in found if size == (48, 72)) == 40


def test_crops_of_small_frames_are_equal_and_as_large_as_the_smallest_allows(backbones: Backbones) -> None:
    frames = [torch.zeros(3, 16, 64, dtype=torch.uint8), torch.zeros(3, 64, 24, dtype=torch.uint8)]
    crops = scorer(backbones, side=64, batch=16)._crops(frames, torch.Generator().manual_seed(0))
    assert crops.pixels.shape == (16, 3, 16, 24)


def test_a_large_set_is_held_in_part_and_each_image_is_decoded_once(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(Sequence[InspectionImage]):
        def __init__(self) -> None:
            self.asked: list[int] = []

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: Any) -> Any:
            self.asked.append(index)
            return grey(index)

    monkeypatch.setattr(module, "FRAME_BYTES", 10 * 3 * 64 * 64)
    images, one = Counting(), scorer(backbones)
    one.fit(images, 0)
    assert images.asked == [0, 4, 9, 13, 17, 22, 26, 30, 35, 39]
    assert one.facts["training"] == "5 steps of 3 crops from 10 images"


# --- A fit


def test_the_same_seed_gives_the_same_arrays(backbones: Backbones) -> None:
    fitted = []
    for seed in (5, 5, 6):
        torch.rand(seed)  # what was drawn before must not matter
        fitted.append(scorer(backbones))
        fitted[-1].fit(normal_pictures(3), seed)
    one, same, other = (f.state()[0] for f in fitted)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["colour"], other["colour"])
    assert fitted[0].facts == fitted[1].facts


def test_random_numbers_and_threads_are_given_back(backbones: Backbones) -> None:
    class StoppedError(Exception):
        pass

    def progress(what: str, done: int, of: int) -> None:
        seen.append((what, done, of, torch.get_num_threads()))
        if done == of == 7:
            raise StoppedError

    seen: list[tuple[str, int, int, int]] = []
    state, before = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        finished, stopped = scorer(backbones, steps=2), scorer(backbones, steps=7, label="mine")
        finished.progress = stopped.progress = progress
        finished.fit(normal_pictures(1), 0)
        finished.load(*finished.state())
        finished.score(normal_pictures(1))
        with pytest.raises(StoppedError):
            stopped.fit(normal_pictures(1), 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert seen[:2] == [("training one-colour", 1, 2, 1), ("training one-colour", 2, 2, 1)]
    assert seen[-1] == ("training mine", 7, 7, 1)


def test_a_stored_scorer_scores_the_same(backbones: Backbones, tmp_path: Path) -> None:
    one, other = scorer(backbones), scorer(backbones)
    one.fit(normal_pictures(3), 0)
    arrays, facts = one.state()
    save_file(dict(arrays), tmp_path / "state.safetensors")
    other.load(load_file(tmp_path / "state.safetensors"), facts)
    (a,), (b,) = (s.score([defective_picture(4)]) for s in (one, other))
    assert a.value == b.value and np.array_equal(a.anomaly_map, b.anomaly_map)
    assert asdict(other.card()) == asdict(one.card()) and other.card().facts == facts
    assert other.card().weights == "trained from scratch on the reference images' pixels"
    again = other.state()[0]
    assert again.keys() == arrays.keys() and all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_a_state_with_a_weight_too_few_or_too_many_is_refused(backbones: Backbones) -> None:
    one = scorer(backbones)
    one.fit(normal_pictures(1), 0)
    arrays, facts = one.state()
    for wrong, message in (
        ({USUAL: arrays[USUAL]}, "Missing key.*colour"),
        (arrays | {"colour.more": arrays["colour"]}, "Unexpected key.*colour.more"),
    ):
        with pytest.raises(RuntimeError, match=f"(?s){message}"):
            scorer(backbones).load(wrong, facts)


def test_a_scorer_that_was_not_fitted_says_so(backbones: Backbones) -> None:
    with pytest.raises(NotFittedError, match="the mine scorer was used before fit"):
        scorer(backbones, label="mine").score(normal_pictures(1))


def test_options_are_checked() -> None:
    for wrong in ({"step": 3}, {"residual": "cubic"}, {"top": 0}, {"steps": 0}):
        with pytest.raises(ValidationError):
            PixelOptions(**wrong)


def test_the_planted_square_is_where_the_map_is_largest(backbones: Backbones) -> None:
    one = scorer(backbones, steps=100)
    one.fit(normal_pictures(8), 0)
    normal = [s.value for s in one.score(normal_pictures(4, first=50))]
    (score,) = one.score([defective_picture(60)])
    y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
    assert SQUARE[0].start <= y < SQUARE[0].stop and SQUARE[1].start <= x < SQUARE[1].stop
    assert score.value > 2 * max(normal)
