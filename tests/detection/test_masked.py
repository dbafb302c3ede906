"""The reconstruction scorer: blind where it judges, the same every time, and able to find a planted square."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
import torch
from patterned import SQUARE, TINY, defective_picture, normal_pictures, pattern, picture

from explainvad.detection.reconstruction import masked
from explainvad.detection.reconstruction.masked import MaskedReconstruction, standardise
from explainvad.detection.reconstruction.network import MaskedAutoencoder
from explainvad.errors import NotFittedError


def untrained(seed: int = 0) -> MaskedReconstruction:
    """A scorer with random weights: what holds for it holds for any."""
    torch.manual_seed(seed)
    scorer = MaskedReconstruction(resolution=64, steps=1, batch=1, architecture=TINY)
    scorer.network = MaskedAutoencoder(TINY).eval().requires_grad_(False)
    return scorer


def frame(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    """A random working frame of rows x cols patches, uint8 (3, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    size = (3, rows * TINY.patch, cols * TINY.patch)
    return torch.randint(256, size, generator=generator, dtype=torch.uint8)


class Spy(torch.nn.Module):
    """Stands in for the network: predicts zeros, and remembers which patches were shown and hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[int], list[int]]] = []

    def forward(self, patches: torch.Tensor, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        visible, hidden = rest[-2:]
        assert isinstance(visible, torch.Tensor) and isinstance(hidden, torch.Tensor)
        self.calls.append((visible.tolist(), hidden.tolist()))
        return torch.zeros(1, len(hidden), patches.shape[2]), torch.zeros(1, len(hidden), patches.shape[2] // 3)


# --- Masks: blind where it judges


@pytest.mark.parametrize("rows", range(1, 9))
@pytest.mark.parametrize("cols", range(2, 10))
def test_masks_hide_every_patch_of_any_grid_and_never_show_what_they_hide(rows: int, cols: int) -> None:
    scorer, spy = untrained(), Spy()
    scorer.network = spy  # type: ignore[assignment]
    mean, variance = scorer.predict(frame(rows, cols))
    assert (mean == 0).all() and torch.isfinite(variance).all() and (variance > 0).all()
    times_hidden = [0] * (rows * cols)
    for visible, hidden in spy.calls:
        assert sorted(visible + hidden) == list(range(rows * cols))
        assert visible and hidden
        for token in hidden:
            times_hidden[token] += 1
    assert min(times_hidden) >= 1


@pytest.mark.parametrize(("rows", "cols"), [(1, 2), (2, 2), (3, 4), (6, 5), (8, 8)])
def test_the_content_of_a_patch_does_not_reach_its_own_prediction(rows: int, cols: int) -> None:
    scorer, before = untrained(), frame(rows, cols)
    mean, variance = scorer.predict(before)
    for token in range(0, rows * cols, 3):
        y, x = (slice(i * TINY.patch, (i + 1) * TINY.patch) for i in divmod(token, cols))
        after = before.clone()
        after[:, y, x] = 255 - after[:, y, x]
        mean_after, variance_after = scorer.predict(after)
        assert torch.equal(mean_after[:, y, x], mean[:, y, x])
        assert torch.equal(variance_after[y, x], variance[y, x])
        assert not torch.equal(mean_after, mean)  # but it does reach those of others


def test_the_masks_are_the_same_for_every_image() -> None:
    scorer, calls = untrained(), []
    for seed in range(2):
        spy = Spy()
        scorer.network = spy  # type: ignore[assignment]
        scorer.predict(frame(6, 6, seed))
        calls.append(spy.calls)
    assert calls[0] == calls[1]


# --- Windows


def test_blended_windows_give_back_what_each_of_them_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, seen = untrained(), []

    def echo(frame: torch.Tensor, y: slice, x: slice) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((y, x))
        return frame[:, y, x], frame[0, y, x].square()

    monkeypatch.setattr(scorer, "_predict_window", echo)
    monkeypatch.setattr(masked, "WINDOW", 48)
    image = frame(15, 11)
    mean, variance = scorer.predict(image)
    assert len(seen) > 4
    torch.testing.assert_close(mean, standardise(image), atol=1e-5, rtol=0)
    torch.testing.assert_close(variance, standardise(image)[0].square(), atol=1e-5, rtol=0)


def test_a_large_image_goes_through_several_windows(
    reconstruction: MaskedReconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked, "WINDOW", 64)
    pixels = pattern(50, 480, 640)  # reduced to a quarter, 120 x 160
    pixels[200:280, 400:480] = [220, 20, 20]
    calls = 0
    inside = reconstruction._predict_window

    def counted(*args: object) -> object:
        nonlocal calls
        calls += 1
        return inside(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reconstruction, "_predict_window", counted)
    (score,) = reconstruction.score([picture(pixels)])
    assert calls > 4
    assert score.anomaly_map.shape == (480, 640)
    y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
    assert 190 <= y < 290 and 390 <= x < 490


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 40), (9, 23), (64, 50), (130, 70)])
def test_images_of_any_size_are_scored_in_their_own_frame(height: int, width: int) -> None:
    (score,) = untrained().score([picture(pattern(0, height, width))])
    assert score.anomaly_map.shape == (height, width)
    assert np.isfinite(score.value) and (score.anomaly_map >= 0).all()
    prediction, deviation = score.evidence["prediction"], score.evidence["deviation"]
    assert prediction.dtype == np.uint8 and prediction.shape == (*deviation.shape, 3)
    assert (deviation > 0).all()


def test_the_smallest_image_that_decoding_admits_is_scored_by_the_default_network() -> None:
    torch.manual_seed(0)
    scorer = MaskedReconstruction()
    scorer.network = MaskedAutoencoder(scorer.architecture).eval().requires_grad_(False)
    assert np.isfinite(scorer.score([picture(pattern(0, 16, 16))])[0].value)


# --- A tiny fit


def test_a_planted_square_scores_above_all_normals_and_is_found(reconstruction: MaskedReconstruction) -> None:
    normal = [s.value for s in reconstruction.score(normal_pictures(8, first=100))]
    for seed in (200, 201):
        (score,) = reconstruction.score([defective_picture(seed)])
        assert score.value > 1.3 * max(normal)
        y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
        assert SQUARE[0].start <= y < SQUARE[0].stop and SQUARE[1].start <= x < SQUARE[1].stop
        inside = score.anomaly_map[SQUARE].mean()
        far = np.ones(score.anomaly_map.shape, dtype=bool)
        far[SQUARE[0].start - 14 : SQUARE[0].stop + 14, SQUARE[1].start - 14 : SQUARE[1].stop + 14] = False
        assert inside > 1.5 * score.anomaly_map[far].mean()


def test_the_score_of_an_image_does_not_depend_on_its_neighbours(reconstruction: MaskedReconstruction) -> None:
    one, bad, other = normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(101, 40, 90))
    (alone,) = reconstruction.score([one])
    for lot, place in (([one, bad, other], 0), ([bad, bad, one], 2), ([other, one], 1)):
        together = reconstruction.score(lot)[place]
        assert together.value == alone.value
        assert np.array_equal(together.anomaly_map, alone.anomaly_map)
    assert reconstruction.score([]) == []


@pytest.fixture(scope="module")
def twice() -> Iterator[tuple[MaskedReconstruction, MaskedReconstruction, MaskedReconstruction]]:
    images = [*normal_pictures(3), picture(pattern(7, 48, 90))]  # of different sizes
    scorers = []
    for seed in (5, 5, 6):
        torch.rand(seed)  # what was drawn before must not matter
        scorer = MaskedReconstruction(resolution=64, steps=4, batch=3, architecture=TINY)
        scorer.fit(images, seed)
        scorers.append(scorer)
    yield scorers[0], scorers[1], scorers[2]


def test_the_same_seed_gives_the_same_weights(
    twice: tuple[MaskedReconstruction, MaskedReconstruction, MaskedReconstruction],
) -> None:
    one, same, other = (scorer.fitted().state_dict() for scorer in twice)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_training_lowers_the_loss_and_reports_every_step() -> None:
    steps: list[tuple[str, int, int]] = []
    scorer = MaskedReconstruction(
        resolution=64, steps=30, batch=4, architecture=TINY, progress=lambda *step: steps.append(step)
    )
    scorer.fit(normal_pictures(4), 0)
    assert [(done, of) for _, done, of in steps] == [(i, 30) for i in range(1, 31)]
    unseen = scorer.working_frame(normal_pictures(1, first=9)[0])
    before, after = ((standardise(unseen) - s.predict(unseen)[0]).square().mean() for s in (untrained(), scorer))
    assert after < 0.8 * before


def test_one_step_is_a_fit() -> None:
    scorer = MaskedReconstruction(resolution=64, steps=1, batch=1, architecture=TINY)
    scorer.fit(normal_pictures(1), 0)
    assert np.isfinite(scorer.score(normal_pictures(1))[0].value)


# --- At rest


def test_a_restored_scorer_gives_identical_scores(reconstruction: MaskedReconstruction) -> None:
    arrays, settings = reconstruction.state()
    restored = MaskedReconstruction.restore(arrays, settings, "cpu")
    for image in (normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(3, 30, 100))):
        ours, theirs = reconstruction.score([image])[0], restored.score([image])[0]
        assert ours.value == theirs.value
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert all(np.array_equal(ours.evidence[name], theirs.evidence[name]) for name in ours.evidence)
    assert asdict(restored.card()) == asdict(reconstruction.card())


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_that_do_not_fit_are_refused(reconstruction: MaskedReconstruction, change: str) -> None:
    arrays, settings = reconstruction.state()
    if change == "missing":
        arrays.pop(next(iter(arrays)))
    else:
        arrays["another.weight"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
        MaskedReconstruction.restore(arrays, settings, "cpu")


def test_nothing_works_before_fit() -> None:
    scorer = MaskedReconstruction(architecture=TINY)
    for call in (lambda: scorer.score(normal_pictures(1)), scorer.state, scorer.fitted):
        with pytest.raises(NotFittedError, match="before fit: call fit, or load a bundle"):
            call()
    assert scorer.card().family == "reconstruction"
