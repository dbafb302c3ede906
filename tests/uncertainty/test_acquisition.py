"""Gates pass and fail by hand, and on pictures that were taken wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pictures import Array, grain, picture, plate, product, speck
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from explainvad.attribution.references import ReferenceGallery
from explainvad.demo.defects import photograph_defect
from explainvad.demo.parts import flange
from explainvad.demo.photograph import HEIGHT, WIDTH, Shot, photograph
from explainvad.uncertainty.acquisition import MEANINGS, AcquisitionGates, acquisition_features

USUAL = {"sharpness": 2.0, "exposure": 100.0, "contrast": 30.0, "likeness": 0.4, "framing": 0.02}
GATES = AcquisitionGates(USUAL, {"sharpness": 0.5, "exposure": 10.0, "contrast": 5.0, "likeness": 0.1, "framing": 0.01})


def features(pixels: Array, gallery: ReferenceGallery) -> dict[str, float]:
    image = picture(pixels)
    return acquisition_features(image, gallery.nearest(image)[0].distance, gallery.displacement(image))


Fitted = tuple[ReferenceGallery, AcquisitionGates, float]


def fit(made: Callable[[int], Array], n_fit: int, n: int) -> Fitted:
    """A gallery of ``n_fit`` pictures, gates fitted to ``n`` more, and the largest deviation of another ``n``."""
    gallery = ReferenceGallery.fit([picture(made(seed)) for seed in range(n_fit)])
    norm = [features(made(seed), gallery) for seed in range(100, 100 + n)]
    gates = AcquisitionGates.fit({name: np.array([f[name] for f in norm]) for name in norm[0]})
    return gallery, gates, max(gates.deviation(features(made(seed), gallery)) for seed in range(200, 200 + n))


@pytest.fixture(scope="module")
def plates() -> Fitted:
    return fit(plate, 12, 30)


@pytest.fixture(scope="module")
def flanges() -> Fitted:
    return fit(product, 12, 16)


def failed(gates: AcquisitionGates, values: dict[str, float], limit: float) -> set[str]:
    return {g.name for g in gates.results(values, limit) if not g.passed}


def test_features_by_hand() -> None:
    flat = acquisition_features(picture(np.full((10, 10, 3), 77.0)), 0.25, 0.04)
    assert flat == {"sharpness": pytest.approx(np.log(1e-3)), "exposure": pytest.approx(77.0), "contrast": 0.0} | {
        "likeness": 0.25,
        "framing": 0.04,
    }
    halves = np.zeros((10, 10, 3))
    halves[:, 5:] = 200
    assert acquisition_features(picture(halves), 0.0, 0.0)["contrast"] == pytest.approx(200)
    assert acquisition_features(picture(halves), 0.0, 0.0)["exposure"] == pytest.approx(100)
    red = np.zeros((4, 4, 3))
    red[..., 0] = 100
    assert acquisition_features(picture(red), 0.0, 0.0)["exposure"] == pytest.approx(29.9)
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
        ({"framing": 0.051}, {"framing"}),
        ({"framing": 0.0}, set()),  # nor too exactly in its place
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


def test_usual_pictures_pass(plates: Fitted) -> None:
    gallery, gates, limit = plates
    assert not any(failed(gates, features(plate(seed), gallery), 1.5 * limit) for seed in range(300, 320))


def test_pictures_taken_wrongly_fail_at_the_gate_that_says_why(plates: Fitted) -> None:
    gallery, gates, limit = plates
    y, x = np.mgrid[:96, :128].astype(float)
    turned = np.stack([map_coordinates(plate(400)[..., c], (95 - y, x * 0.6), order=1) for c in range(3)], axis=2)
    wrong = {
        "sharpness": gaussian_filter(plate(400), (2, 2, 0)),
        "exposure": 0.5 * plate(400),
        "contrast": 128 + 0.3 * (plate(400) - 128),
        "likeness": turned,
        # by one and a half lines: after whole periods the lines fit again
        "framing": np.pad(plate(400), ((0, 0), (11, 0), (0, 0)), mode="reflect")[:, :128],
    }
    for gate, pixels in wrong.items():
        assert gate in failed(gates, features(pixels, gallery), limit), gate


def test_a_small_defect_hardly_moves_the_features_of_the_picture(plates: Fitted) -> None:
    gallery, gates, limit = plates
    for seed, colour in ((500, 255.0), (501, 0.0), (502, 255.0)):
        sound = plate(seed)
        damaged = sound.copy()
        damaged[20:28, 30:42] = colour  # 0.8 % of the picture
        before, after = features(sound, gallery), features(damaged, gallery)
        moved = {name: abs(after[name] - before[name]) / gates.scale[name] for name in after}
        assert max(moved[name] for name in ("sharpness", "exposure", "contrast", "framing")) < limit / 3


@pytest.mark.parametrize("enlarge", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_a_picture_reduced_to_half_and_enlarged_again_is_not_sharp(enlarge: Image.Resampling, flanges: Fitted) -> None:
    gallery, gates, limit = flanges
    for seed in range(600, 603):
        half = Image.fromarray(product(seed).astype(np.uint8)).reduce(2)
        again = np.asarray(half.resize((WIDTH, HEIGHT), enlarge), dtype=float)
        assert failed(gates, features(again, gallery), limit) == {"sharpness"}


@pytest.mark.parametrize("share", [0.03, 0.06, 0.12])
@pytest.mark.parametrize("direction", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_a_part_out_of_its_place_fails_at_the_framing(
    share: float, direction: tuple[int, int], flanges: Fitted
) -> None:
    gallery, gates, limit = flanges
    right, down = (share * by for by in direction)
    shot = replace(Shot.draw(np.random.default_rng(700)), shift=(right * WIDTH, down * HEIGHT))
    found = features(photograph(flange(), shot).astype(float), gallery)
    assert "framing" in failed(gates, found, limit)
    assert found["framing"] == pytest.approx(share, abs=0.015)


def test_defects_do_not_move_a_part_and_usual_handling_passes(flanges: Fitted) -> None:
    gallery, gates, limit = flanges
    for seed, kind in enumerate(("scratch", "stain", "missing_feature"), start=800):
        rng = np.random.default_rng(seed)
        part = photograph_defect(kind, 0, Shot.draw(rng), rng)
        before, after = (features(p.astype(float), gallery)["framing"] for p in (part.normal_twin, part.picture))
        assert abs(after - before) < 0.1 * limit * gates.scale["framing"], kind
        assert "framing" not in failed(gates, {"framing": after}, limit), kind


def test_a_small_part_out_of_its_place_is_seen_by_its_framing() -> None:
    gallery, gates, limit = fit(speck, 16, 30)
    for seed in range(300, 306):
        moved, usual = features(speck(seed, right=0.08 * 128), gallery), features(speck(seed), gallery)
        assert gates.deviation({"framing": moved["framing"]}) > 3 * limit
        assert gates.deviation({"likeness": moved["likeness"]}) < 1.5 * limit  # the largest differences do not count
        assert gates.deviation(usual) < 1.2 * limit


def test_where_nothing_has_a_place_the_framing_neither_fails_nor_loosens_the_other_gates() -> None:
    gallery, gates, limit = fit(grain, 16, 30)
    found = [features(grain(seed), gallery) for seed in range(200, 260)]
    framing = [gates.deviation({"framing": f["framing"]}) for f in found]
    others = max(gates.deviation({n: v for n, v in f.items() if n != "framing"}) for f in found[:30])
    assert limit == others
    assert max(framing) < limit
