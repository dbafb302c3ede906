"""Gates pass and fail by hand, and on pictures that were taken wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from explainvad.attribution.references import ReferenceGallery
from explainvad.types import InspectionImage
from explainvad.uncertainty.acquisition import MEANINGS, AcquisitionGates, acquisition_features

Array = NDArray[np.float64]
GATES = AcquisitionGates(
    centre={"sharpness": 2.0, "exposure": 100.0, "contrast": 30.0, "likeness": 0.4},
    scale={"sharpness": 0.5, "exposure": 10.0, "contrast": 5.0, "likeness": 0.1},
)
USUAL = {"sharpness": 2.0, "exposure": 100.0, "contrast": 30.0, "likeness": 0.4}


def picture(pixels: Array) -> InspectionImage:
    rounded = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return InspectionImage("img-1", "a.png", rounded, "0" * 64, 1, Path("a.png"))


def plate(seed: int, lines: float = 7.0) -> Array:
    """A milled plate, a little moved and unevenly lit, with a bore and camera noise: (96, 128, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128].astype(float)
    dy, dx = rng.uniform(-1, 1, 2)
    grey = 130 + 25 * np.sin((x + dx) * 2 * np.pi / lines) + 20 * np.cos((y + dy) / 30)
    grey[(y - 48 - dy) ** 2 + (x - 64 - dx) ** 2 < 20**2] = 40
    grey = grey * rng.normal(1, 0.02) + rng.normal(0, 3, grey.shape)
    return np.stack([grey, 0.95 * grey, 0.9 * grey], axis=2)


@pytest.fixture(scope="module")
def gallery() -> ReferenceGallery:
    return ReferenceGallery.fit([picture(plate(seed)) for seed in range(12)])


def features(pixels: Array, gallery: ReferenceGallery) -> dict[str, float]:
    image = picture(pixels)
    return acquisition_features(image, gallery.nearest(image)[0].distance)


@pytest.fixture(scope="module")
def fitted(gallery: ReferenceGallery) -> tuple[AcquisitionGates, float]:
    """Gates fitted to 30 plates, and the largest deviation of 30 more."""
    norm = [features(plate(seed), gallery) for seed in range(100, 130)]
    gates = AcquisitionGates.fit({name: np.array([f[name] for f in norm]) for name in norm[0]})
    return gates, max(gates.deviation(features(plate(seed), gallery)) for seed in range(200, 230))


def failed(gates: AcquisitionGates, values: dict[str, float], limit: float) -> set[str]:
    return {g.name for g in gates.results(values, limit) if not g.passed}


def test_features_by_hand() -> None:
    flat = acquisition_features(picture(np.full((10, 10, 3), 77.0)), 0.25)
    assert flat == {"sharpness": pytest.approx(np.log(1e-3)), "exposure": pytest.approx(77.0), "contrast": 0.0} | {
        "likeness": 0.25
    }
    halves = np.zeros((10, 10, 3))
    halves[:, 5:] = 200
    assert acquisition_features(picture(halves), 0.0)["contrast"] == pytest.approx(200)
    assert acquisition_features(picture(halves), 0.0)["exposure"] == pytest.approx(100)
    red = np.zeros((4, 4, 3))
    red[..., 0] = 100
    assert acquisition_features(picture(red), 0.0)["exposure"] == pytest.approx(29.9)
    assert set(flat) == set(MEANINGS)


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({}, set()),
        ({"sharpness": 3.4}, set()),
        ({"sharpness": 3.6}, {"sharpness"}),
        ({"sharpness": 0.4}, {"sharpness"}),
        ({"exposure": 69.0}, {"exposure"}),
        ({"exposure": 131.0, "contrast": 46.0}, {"exposure", "contrast"}),
        ({"likeness": 0.71}, {"likeness"}),
        ({"likeness": 0.0}, set()),  # no picture is too similar
        ({"likeness": 0.0, "contrast": 14.0}, {"contrast"}),
    ],
)
def test_gates_at_three_deviations_by_hand(change: dict[str, float], fails: set[str]) -> None:
    assert failed(GATES, USUAL | change, 3.0) == fails


def test_results_carry_limits_in_the_features_own_unit() -> None:
    results = {g.name: g for g in GATES.results(USUAL | {"exposure": 104.0}, 3.0)}
    assert (results["exposure"].lower, results["exposure"].value, results["exposure"].upper) == (70.0, 104.0, 130.0)
    assert results["likeness"].lower == 0.0
    assert results["likeness"].upper == pytest.approx(0.7)
    assert {name: g.meaning for name, g in results.items()} == MEANINGS


def test_the_deviation_is_the_largest_one() -> None:
    assert GATES.deviation(USUAL | {"exposure": 80.0, "contrast": 35.0}) == 2.0
    assert GATES.deviation(USUAL | {"likeness": 0.0}) == 0.0


values = st.floats(-1e4, 1e4)


@given(*[st.fixed_dictionaries(dict.fromkeys(USUAL, values))] * 2)
def test_gates_pass_exactly_when_the_deviation_is_within_the_limit(
    one: dict[str, float], other: dict[str, float]
) -> None:
    # An attained deviation as limit, as CAL sets it: the image that attains it passes, however it was rounded
    limit = GATES.deviation(one)
    assert not failed(GATES, one, limit)
    assert bool(failed(GATES, other, limit)) == (GATES.deviation(other) > limit)
    assert failed(GATES, one, float(np.nextafter(limit, -np.inf)))


@given(st.fixed_dictionaries({name: st.floats(0, 1e4) for name in USUAL}), st.floats(0, 50))
def test_printed_limits_say_the_same_but_for_rounding(asked: dict[str, float], limit: float) -> None:
    for g in GATES.results(asked, limit):
        slack = 1e-9 * max(1.0, abs(g.value))
        if g.passed:
            assert g.lower - slack <= g.value <= g.upper + slack
        else:
            assert g.value < g.lower + slack or g.value > g.upper - slack


def test_the_scale_is_robust_and_never_zero() -> None:
    gates = AcquisitionGates.fit(
        {"exposure": np.array([99.0, 100.0, 101.0, 100.0, 160.0]), "contrast": np.full(5, 1 / 3)}
    )
    assert gates.centre == {"exposure": 100.0, "contrast": 1 / 3}
    assert gates.scale["exposure"] == pytest.approx(1.4826)
    assert gates.scale["contrast"] == 1e-3
    assert gates.deviation({"exposure": 100.0, "contrast": 1 / 3}) == 0.0
    assert gates.deviation({"exposure": 100.0, "contrast": 1 / 3 + 0.01}) == pytest.approx(10)


def test_usual_pictures_pass(gallery: ReferenceGallery, fitted: tuple[AcquisitionGates, float]) -> None:
    gates, limit = fitted
    passed = [not failed(gates, features(plate(seed), gallery), 1.5 * limit) for seed in range(300, 320)]
    assert all(passed)


def test_pictures_taken_wrongly_fail_at_the_gate_that_says_why(
    gallery: ReferenceGallery, fitted: tuple[AcquisitionGates, float]
) -> None:
    gates, limit = fitted
    y, x = np.mgrid[:96, :128].astype(float)
    turned = np.stack([map_coordinates(plate(400)[..., c], (95 - y, x * 0.6), order=1) for c in range(3)], axis=2)
    wrong = {
        "sharpness": gaussian_filter(plate(400), (2, 2, 0)),
        "exposure": 0.5 * plate(400),
        "contrast": 128 + 0.3 * (plate(400) - 128),
        "likeness": turned,
    }
    for gate, pixels in wrong.items():
        assert gate in failed(gates, features(pixels, gallery), limit), gate


def test_a_small_defect_hardly_moves_the_features_of_the_picture(
    gallery: ReferenceGallery, fitted: tuple[AcquisitionGates, float]
) -> None:
    gates, limit = fitted
    for seed, colour in ((500, 255.0), (501, 0.0), (502, 255.0)):
        sound = plate(seed)
        damaged = sound.copy()
        damaged[20:28, 30:42] = colour  # 0.8 % of the picture
        before, after = features(sound, gallery), features(damaged, gallery)
        moved = {name: abs(after[name] - before[name]) / gates.scale[name] for name in after}
        assert max(moved[name] for name in ("sharpness", "exposure", "contrast")) < limit / 3
