"""How fast the risk falls when the most uncertain images are deferred to a person.

Of n images the k with the least uncertainty are accepted, coverage k / n. The selective risk is their mean loss,
the generalised risk their summed loss over all n images: for errors, the share of images accepted *and* wrong.
Ties are averaged over all their orders, exactly, so that a constant uncertainty is random deferral. All values describe
the test images; a working point chosen on them bounds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explainvad.types import Interval

Floats = NDArray[np.float64]

COVERAGE, RISK = 0.80, 0.05  # the working points that are reported
_CURVE_POINTS = 100  # at most, of the curve that is kept
_ROUNDING = 1e-9
_TAILS = (0.025, 0.975)


@dataclass(frozen=True, slots=True, eq=False)
class SelectiveRisk:
    """One uncertainty's risk-coverage curve and its summaries, with 95 % bootstrap intervals over images.

    ``curve`` holds (coverage, risk, lower, upper) by ascending coverage in (0, 1]; its band is pointwise.
    """

    n: int
    risk: float  # mean loss without deferral
    aurc: Interval
    augrc: Interval
    risk_at_coverage: Interval  # COVERAGE
    coverage_at_risk: Interval  # RISK; 0 where no coverage reaches it
    curve: tuple[tuple[float, float, float, float], ...]


def selective_risks(losses: ArrayLike, uncertainty: ArrayLike) -> Floats:
    """The selective risk at coverage 1/n, 2/n, ..., 1: shape (n,), in units of the loss.

    ``losses`` float (n,) >= 0, 1 where the decision rule errs and else 0; ``uncertainty`` float (n,), larger is
    deferred first. Raises ValueError for other shapes, an empty sample, or values that are not finite.
    """
    return _risks(*_checked(losses, uncertainty))


def aurc(risks: Floats) -> float:
    """Area under the risk-coverage curve: the mean of the n selective risks.

    Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers" (2019). It weights
    the first few images heavily. Under random deferral its expectation is the mean loss.
    """
    return float(risks.mean())


def augrc(risks: Floats) -> float:
    """Area under the generalised risk over coverage, from (0, 0) by trapezoids.

    Traub et al., "Overcoming common flaws in the evaluation of selective classification systems" (2024): for errors,
    (1 - AUROC) e (1 - e) + e^2 / 2, with error rate e and the AUROC of telling errors by the uncertainty. So it lies
    between e^2 / 2 and e - e^2 / 2, and under random deferral its expectation is e / 2, half the mean loss.
    """
    n = len(risks)
    generalised = risks * np.arange(1, n + 1) / n
    return float((generalised.sum() - generalised[-1] / 2) / n)


def risk_at_coverage(risks: Floats, coverage: float = COVERAGE) -> float:
    """The selective risk at the smallest coverage k / n that is at least ``coverage`` in (0, 1]."""
    return float(risks[math.ceil(coverage * len(risks) - _ROUNDING) - 1])


def coverage_at_risk(risks: Floats, risk: float = RISK) -> float:
    """The largest coverage k / n with a selective risk of at most ``risk``; 0 where there is none."""
    kept = np.flatnonzero(risks <= risk + _ROUNDING)
    return float((kept[-1] + 1) / len(risks)) if kept.size else 0.0


def measure_selective_risk(
    losses: ArrayLike, uncertainty: ArrayLike, labels: ArrayLike, *, n_resamples: int = 1000, seed: int = 0
) -> SelectiveRisk:
    """Measure one uncertainty; percentile bootstrap over images, within each of the ``labels`` (any type, (n,)).

    It covers the choice of test images, not that of the model. Without a single error the intervals have no width,
    which must not be read as certainty. Losses, uncertainty and errors as in :func:`selective_risks`.
    """
    loss, rank = _checked(losses, uncertainty)
    n = len(loss)
    measured = _risks(loss, rank)
    resampled = [_risks(loss[images], rank[images]) for images in _resamples(labels, n, n_resamples, seed)]

    def interval(metric: Callable[[Floats], float]) -> Interval:
        return _percentiles(metric(measured), [metric(r) for r in resampled])

    kept = np.unique(np.ceil(np.linspace(0, n, _CURVE_POINTS + 1)[1:] - _ROUNDING).astype(np.intp))
    lower, upper = np.quantile([r[kept - 1] for r in resampled], _TAILS, axis=0)
    points = zip(kept / n, measured[kept - 1], lower, upper, strict=True)
    return SelectiveRisk(
        n=n,
        risk=float(loss.mean()),
        aurc=interval(aurc),
        augrc=interval(augrc),
        risk_at_coverage=interval(risk_at_coverage),
        coverage_at_risk=interval(coverage_at_risk),
        curve=tuple((float(c), float(r), float(low), float(high)) for c, r, low, high in points),
    )


def augrc_difference(
    losses: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """AUGRC of the ``first`` uncertainty less that of the ``second``: below 0, deferring by the first is better.

    Both are measured on the same resampled images, so what makes an image hard cancels. Against a constant ``second``,
    such as zeros, it is the gain over random deferral. Other arguments as in :func:`measure_selective_risk`; the
    interval is that of one comparison.
    """
    loss, rank = _checked(losses, first)
    _, other = _checked(losses, second)

    def difference(images: NDArray[np.intp]) -> float:
        return augrc(_risks(loss[images], rank[images])) - augrc(_risks(loss[images], other[images]))

    resampled = [difference(images) for images in _resamples(labels, len(loss), n_resamples, seed)]
    return _percentiles(difference(np.arange(len(loss))), resampled)


def _checked(losses: ArrayLike, uncertainty: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    """The losses, and the rank of each image's uncertainty among the distinct ones, 0 the least."""
    loss, u = np.asarray(losses, dtype=np.float64), np.asarray(uncertainty, dtype=np.float64)
    if loss.ndim != 1 or loss.size == 0 or u.shape != loss.shape:
        raise ValueError(f"losses and uncertainty must be (n,) with n >= 1, got {loss.shape} and {u.shape}")
    if not (np.isfinite(loss) & (loss >= 0) & np.isfinite(u)).all():
        raise ValueError(f"losses must be finite and >= 0 and uncertainty finite, got {loss} and {u}")
    return loss, np.unique(u, return_inverse=True)[1]


def _risks(loss: Floats, rank: NDArray[np.intp]) -> Floats:
    """Expected selective risks over the orders within ties: each image of a tie stands for their mean loss."""
    tied = np.bincount(rank)
    mean = np.bincount(rank, loss) / np.maximum(tied, 1)  # a rank may be absent from a resample
    return np.asarray(np.cumsum(np.repeat(mean, tied)) / np.arange(1, len(loss) + 1))


def _resamples(labels: ArrayLike, n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Draw images with replacement, as many of each label as there are."""
    strata = np.asarray(labels)
    if strata.shape != (n,):
        raise ValueError(f"labels must be ({n},), got {strata.shape}")
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == label) for label in np.unique(strata)]
    for _ in range(n_resamples):
        yield np.concatenate([rng.choice(images, images.size) for images in members])


def _percentiles(estimate: float, resampled: Sequence[float]) -> Interval:
    lower, upper = np.quantile(resampled, _TAILS)
    return Interval(estimate, float(lower), float(upper), 0.95)
