"""PaDiM over features that a hand can compute, and over a tiny CNN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture
from scipy.spatial.distance import mahalanobis
from tiny_models import CNN
from torch import Tensor

from explainvad.detection import padim
from explainvad.detection.backbones import Backbones
from explainvad.detection.frames import shorter_side_size, smooth_map
from explainvad.detection.padim import Moments, PaDiM, PaDiMOptions, squared_distances, whitening
from explainvad.errors import NotFittedError, UsageError
from explainvad.types import InspectionImage


class Colours:
    """Mean colours of cells of 8 px as layer 1, their spread in cells of 16 px as layer 2: 6 channels."""

    name, weights, device, resolution = "colours", "none", "cpu", 64

    def request(self, layers: Sequence[int]) -> None:
        assert tuple(layers) == (1, 2)

    def size(self, image: InspectionImage) -> tuple[int, int]:
        return shorter_side_size(image.height, image.width, 64, 16)

    def see(self, images: Sequence[InspectionImage]) -> None:
        pass

    def levels(self, image: InspectionImage, layers: Sequence[int]) -> list[Tensor]:
        pixels = torch.tensor(image.pixels).permute(2, 0, 1).double() / 64
        fine = F.avg_pool2d(pixels, 8)
        coarse = (F.avg_pool2d(pixels.square(), 16) - F.avg_pool2d(pixels, 16).square()).clamp_min(0).sqrt()
        return [fine.float(), coarse.float()]


class Pool:
    """Gives that extractor whatever it is asked for."""

    def extractor(self, name: str, resolution: int) -> Colours:
        return Colours()


def scorer(**options: Any) -> PaDiM:
    return PaDiM(PaDiMOptions(layers=(1, 2), **options), Pool())  # type: ignore[arg-type]


def embedded(image: InspectionImage, channels: Sequence[int]) -> NDArray[np.float64]:
    """(rows, cols, d): the coarse level repeated over the cells that it covers."""
    fine, coarse = (level.double().numpy() for level in Colours().levels(image, (1, 2)))
    return np.concatenate((fine, coarse.repeat(2, axis=1).repeat(2, axis=2)))[list(channels)].transpose(1, 2, 0)


def by_hand(fitted: Sequence[InspectionImage], image: InspectionImage, channels: Sequence[int]) -> NDArray[np.float64]:
    """Mahalanobis distance at each place (rows, cols)."""
    seen = np.stack([embedded(i, channels) for i in fitted])
    x = embedded(image, channels)
    out = np.empty(x.shape[:2])
    for place in np.ndindex(*out.shape):
        samples = seen[:, *place]
        precision = np.linalg.inv(np.atleast_2d(np.cov(samples, rowvar=False)) + 0.01 * np.eye(len(channels)))
        out[place] = mahalanobis(x[place], samples.mean(axis=0), precision)
    return out


# --- Statistics


@pytest.mark.parametrize("sizes", [[7], [1, 1, 5], [3, 4], [1]])
def test_moments_are_those_of_all_batches_together(sizes: list[int]) -> None:
    # far from 0, where a sum of squares minus a square of sums has no digits left
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 5, 4, generator=generator) + 3000 for n in sizes]
    moments = Moments(5, 4)
    for batch in batches:
        moments.add(batch)
    together = torch.cat(batches).double().numpy()
    np.testing.assert_allclose(moments.mean.numpy(), together.mean(0), rtol=1e-12)
    (covariance,) = moments.covariances(5)
    for place in range(5):
        expected = np.cov(together[:, place], rowvar=False) if len(together) > 1 else np.zeros((4, 4))
        np.testing.assert_allclose(covariance[place].numpy(), expected, rtol=1e-9, atol=1e-12)
    parts = list(moments.covariances(2))
    assert [len(part) for part in parts] == [2, 2, 1] and torch.equal(torch.cat(parts), covariance)


def gaussians(places: int, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(places, d, d, generator=generator, dtype=torch.float64)
    return mix @ mix.mT


@pytest.mark.parametrize("d", [1, 2, 5, 8])
def test_factors_are_the_root_of_the_precision_in_blocks_without_zeros(d: int) -> None:
    covariance = gaussians(6, d)
    factors, error = whitening(covariance.split(4), 0.01)
    exact = torch.linalg.inv(covariance + 0.01 * torch.eye(d))
    u = torch.cat([F.pad(f.double(), (0, 0, 0, d - f.shape[1])) for f in factors], dim=2)
    assert torch.equal(u, u.triu())
    torch.testing.assert_close(u @ u.mT, exact, rtol=2e-2, atol=2e-3 * float(exact.abs().max()))
    assert len(factors) == min(d, 4) and all(f.dtype == torch.float16 for f in factors)
    assert sum(f[0].numel() for f in factors) < d * d or d == 1
    # the error that was announced is that of points drawn from the worst place
    generator = torch.Generator().manual_seed(2)
    root = torch.linalg.cholesky(covariance + 0.01 * torch.eye(d))
    points = torch.randn(20_000, d, generator=generator, dtype=torch.float64) @ root.mT
    whole = torch.linalg.inv(root).mT
    off = (points @ (whole - u)).square().sum(2).mean(1).div(d).sqrt()
    assert float(off.max()) == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("chunk", [3, 100])
def test_blocks_give_the_distances_of_the_first_channels(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padim, "CHUNK", chunk)
    covariance = gaussians(7, 8)
    factors, _ = whitening([covariance], 0.01)
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(3))
    found = squared_distances(x, factors)
    for k, m in enumerate((2, 4, 6, 8)):
        for place in range(7):
            marginal = (covariance[place, :m, :m] + 0.01 * torch.eye(m)).numpy()
            expected = mahalanobis(x[place, :m].numpy(), np.zeros(m), np.linalg.inv(marginal)) ** 2
            assert float(found[k, place]) == pytest.approx(expected, rel=1e-2)


# --- The scorer on features by hand


@pytest.fixture(scope="module")
def fitted() -> PaDiM:
    made = scorer()
    made.fit(normal_pictures(20), seed=0)
    return made


def test_distances_are_those_of_the_gaussian_at_each_place(fitted: PaDiM) -> None:
    channels = fitted.arrays["channels"].tolist()
    assert sorted(channels) == list(range(6))
    image = defective_picture(40)
    (score,) = fitted.score([image])
    np.testing.assert_allclose(score.evidence["distance"], by_hand(normal_pictures(20), image, channels), rtol=5e-3)


def test_a_draw_of_channels_is_kept_in_its_order_and_members_hold_the_first_ones() -> None:
    made, images, image = scorer(channels=4, sigma=0), normal_pictures(9), defective_picture(41)
    made.fit(images, seed=5)
    channels = made.arrays["channels"].tolist()
    assert len(set(channels)) == 4 and channels != sorted(channels)
    (score,) = made.score([image])
    maps = [*score.member_maps, score.evidence["distance"]]
    for k, found in enumerate(maps, start=1):  # in the unit of all
        np.testing.assert_allclose(found, by_hand(images, image, channels[:k]) * (4 / k) ** 0.5, rtol=5e-3)
    assert score.members.tolist() == [m.max() for m in score.member_maps] and len(score.members) == 3


def test_the_map_is_enlarged_blurred_and_its_maximum_is_the_score(fitted: PaDiM) -> None:
    image = defective_picture(42)
    (score,) = fitted.score([image])
    smooth = smooth_map(torch.from_numpy(score.evidence["distance"]), (64, 64), 4.0)
    np.testing.assert_allclose(score.anomaly_map, smooth.numpy(), rtol=1e-6)
    assert score.value == pytest.approx(float(smooth.max()))
    y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
    assert SQUARE[0].start <= y < SQUARE[0].stop and SQUARE[1].start <= x < SQUARE[1].stop
    assert score.value > 3 * max(s.value for s in fitted.score(normal_pictures(3, first=50)))


class Counted(Sequence[InspectionImage]):
    """Images that count how often they were decoded."""

    def __init__(self, images: Sequence[InspectionImage]) -> None:
        self.images, self.reads = images, [0] * len(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        self.reads[index] += 1
        return self.images[index]

    def __iter__(self) -> Iterator[InspectionImage]:
        raise AssertionError("images are asked for one by one")


def test_passes_over_fewer_places_at_a_time_change_nothing(fitted: PaDiM, monkeypatch: pytest.MonkeyPatch) -> None:
    once = Counted(normal_pictures(20))
    scorer().fit(once, seed=0)
    assert once.reads == [1] * 20
    monkeypatch.setattr(padim, "SCATTER_BYTES", 8 * 6 * 6 * 25)
    thrice, steps = Counted(normal_pictures(20)), []
    made = scorer()
    made.progress = lambda what, done, of: steps.append((done, of))
    made.fit(thrice, seed=0)
    assert thrice.reads == [1] + [3] * 19
    assert steps == [(done, 60) for done in (8, 16, 20, 28, 36, 40, 48, 56, 60)]
    assert made.arrays.keys() == fitted.arrays.keys()
    assert all(torch.equal(made.arrays[name], array) for name, array in fitted.arrays.items())


def test_a_stride_averages_cells_and_shares_their_gaussian() -> None:
    made, images, image = scorer(stride=3), normal_pictures(8), defective_picture(43)
    made.fit(images, seed=0)
    assert made.arrays["mean"].shape == (3, 3, 6)
    channels = made.arrays["channels"].tolist()
    mean = np.stack([embedded(i, channels) for i in images]).mean(0)
    np.testing.assert_allclose(made.arrays["mean"][0, 1], mean[:3, 3:6].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(made.arrays["mean"][2, 2], mean[6:, 6:].mean((0, 1)), rtol=1e-5)
    assert made.score([image])[0].anomaly_map.shape == (64, 64)


def test_an_image_of_another_shape_is_brought_to_the_fitted_grid(fitted: PaDiM) -> None:
    assert "other frames" not in fitted.facts
    wide = picture(np.ascontiguousarray(np.repeat(pattern(60), 2, axis=1)))  # 64 x 128
    (score,), (narrow,) = fitted.score([wide]), fitted.score([picture(pattern(60))])
    assert score.anomaly_map.shape == (64, 128) and score.evidence["distance"].shape == (8, 8)
    # its colours are the same at the same shares of its width, so it is about as normal
    assert score.value < 3 * narrow.value
    mixed = scorer()
    mixed.fit([*normal_pictures(9), wide, wide], seed=0)
    assert mixed.facts["other frames"].startswith("2 images")
    assert mixed.arrays["mean"].shape == (8, 8, 6)


def test_facts_name_what_the_method_takes_for_granted(fitted: PaDiM) -> None:
    assert "same place" in fitted.facts["alignment"] and "lie alike" in fitted.summary
    assert fitted.facts["features"] == "6 of 6 channels of layers 1, 2 of colours"
    size = sum(array.nbytes for array in fitted.state()[0].values()) / 1e6
    assert f"8 x 8 Gaussians from 20 images, {size:.0f} MB" in fitted.facts["distribution"]
    assert "few images" not in fitted.facts
    few = scorer()
    few.fit(normal_pictures(6), seed=0)
    assert few.facts["few images"].startswith("6 images cannot span 6 channels")
    assert np.isfinite(few.score(normal_pictures(1, first=9))[0].value)


def test_one_image_leaves_the_bare_regularisation() -> None:
    made, (first, second) = scorer(), normal_pictures(2)
    made.fit([first], seed=0)
    channels = made.arrays["channels"].tolist()
    apart = np.linalg.norm(embedded(first, channels) - embedded(second, channels), axis=2)
    np.testing.assert_allclose(made.score([second])[0].evidence["distance"], apart / 0.01**0.5, rtol=1e-3)


def test_more_channels_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected at most the 6 channels of layers \(1, 2\).*got channels = 7"):
        scorer(channels=7).fit(normal_pictures(2), seed=0)


def test_the_number_of_channels_is_the_papers() -> None:
    assert [scorer(backbone=name)._drawn(10_000) for name in ("resnet-18", "wide-resnet-50-2", "vit-small")] == [
        100, 550, 100,
    ]  # fmt: skip
    assert scorer()._drawn(60) == 60


# --- On a network


def test_a_fitted_scorer_is_its_state(backbones: Backbones) -> None:
    options = PaDiMOptions(backbone=CNN, resolution=64, channels=20, label="gauss")
    made = PaDiM(options, backbones)
    with pytest.raises(NotFittedError, match="gauss"):
        made.score(normal_pictures(1))
    made.fit(normal_pictures(12), seed=3)
    arrays, facts = made.state()
    again = PaDiM(options, backbones)
    again.load(arrays, facts)
    images = [defective_picture(70), *normal_pictures(2, first=80)]
    for a, b in zip(made.score(images), again.score(images), strict=True):
        assert (a.scorer, a.value) == (b.scorer, b.value) == ("gauss", b.value)
        assert np.array_equal(a.anomaly_map, b.anomaly_map) and np.array_equal(a.members, b.members)
    assert asdict(again.card()) == asdict(made.card()) and made.card().weights == made.extractor.weights
    other = PaDiM(options, backbones)
    other.fit(normal_pictures(12), seed=3)
    assert all(np.array_equal(other.state()[0][name], array) for name, array in arrays.items())
    other.fit(normal_pictures(12), seed=4)
    assert not torch.equal(other.arrays["channels"], made.arrays["channels"])
