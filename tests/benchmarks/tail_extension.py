"""Ranks beyond the NORM maximum: which extension detects most, and keeps strong defects in order? Simulated.

    python tests/benchmarks/tail_extension.py [--alpha 0.05] [--replicates N]

Scorers with a Gaussian copula and several marginals; NORM, CAL and test images; defects that raise one scorer's score
or all. Every extension is fused and made a conformal p-value as the package does it. Prints the Markdown tables of
docs/tail_extension.md, which also says how the choice is made.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from explainvad.types import ImageScore
from explainvad.uncertainty.conformal import significant_ranks
from explainvad.uncertainty.fusion import LARGEST_RANK, SMALLEST_LOG_RANK, Fusion

Array = NDArray[np.float64]
Drop = Callable[[Array], Array]  # excesses over the NORM maximum (R, m) -> how far log u falls
Results = dict[str, list[dict[str, Array]]]  # by extension, then setting: by column, of each replicate (R,)
SEED, N_CAL, N_TEST = 20, 100, 40
MARGINALS = {
    "normal": [stats.norm()],
    "lognormal": [stats.lognorm(0.8)],
    "gamma": [stats.gamma(2)],
    "t3": [stats.t(3)],
    "uniform": [stats.uniform()],
    "mixed": [stats.norm(), stats.t(3), stats.lognorm(0.8), stats.uniform()],
}
# Added to a score, in spans from the median to the 95th percentile of normal scores
STRENGTHS = {"weak": 1.5, "strong": 3.0, "severe": 6.0, "extreme": 24.0, "twice extreme": 48.0}
PAIRS = [("weak", "strong"), ("strong", "severe"), ("extreme", "twice extreme")]
WHO = ("one", "all")  # scorers that see the defect
POWERS = [f"{who} {strength}" for who in WHO for strength in ("weak", "strong")]
ORDERS = [f"{who} {low} < {high}" for who in WHO for low, high in PAIRS]
MEASURES = {"power": POWERS, "AUROC": ORDERS}
FACTORS = {"marginal": "", "n_norm": "n_norm ", "correlation": "correlation ", "scorers": "K = "}
Z = np.linspace(-9, 9, 40001)


@cache
def quantiles(distribution: stats.distributions.rv_frozen) -> Array:
    """At the normal quantiles Z; by the survival function on the upper half, which keeps its digits."""
    return np.where(Z < 0, distribution.ppf(stats.norm.cdf(Z)), distribution.isf(stats.norm.sf(Z)))


@dataclass(frozen=True, slots=True)
class Setting:
    """``scorers`` with one correlation between any two; NORM has ``n_norm`` images."""

    scorers: int
    correlation: float
    marginal: str
    n_norm: int

    @property
    def distributions(self) -> list[stats.distributions.rv_frozen]:
        return list(itertools.islice(itertools.cycle(MARGINALS[self.marginal]), self.scorers))

    def draw(self, rng: np.random.Generator, replicates: int, n: int) -> Array:
        """Scores of normal images (R, n, K)."""
        common, own = rng.standard_normal((replicates, n, 1)), rng.standard_normal((replicates, n, self.scorers))
        z = np.sqrt(self.correlation) * common + np.sqrt(1 - self.correlation) * own
        return np.stack([np.interp(z[..., k], Z, quantiles(d)) for k, d in enumerate(self.distributions)], axis=2)


SETTINGS = [Setting(*s) for s in itertools.product((2, 3, 4), (0.3, 0.9), MARGINALS, (16, 40, 100))]
LEVELS = {  # of each factor: its settings
    f"{label}{value}": [i for i, s in enumerate(SETTINGS) if getattr(s, factor) == value]
    for factor, label in FACTORS.items()
    for value in dict.fromkeys(getattr(s, factor) for s in SETTINGS)
}


def top_quarter(norm: Array) -> Array:
    """Of sorted NORM scores (R, n), as in what follows: excesses of the largest quarter over its smallest (R, m)."""
    tail = norm[:, -max(2, round(norm.shape[1] / 4)) :]
    return tail[:, 1:] - tail[:, :1]


def mean_excess(norm: Array) -> Array:
    return top_quarter(norm).mean(axis=1, keepdims=True)


def half_deviation(norm: Array) -> Array:
    return norm.std(axis=1, keepdims=True) / 2


def exponential(scale: Callable[[Array], Array]) -> Callable[[Array], Drop]:
    return lambda norm: lambda excess: excess / scale(norm)


def power_law(index: float, scale: Callable[[Array], Array]) -> Callable[[Array], Drop]:
    return lambda norm: lambda excess: index * np.log1p(excess / scale(norm))


def normal_tail(norm: Array) -> Drop:
    mean, deviation = norm.mean(axis=1, keepdims=True), norm.std(axis=1, ddof=1, keepdims=True)
    top = (norm[:, -1:] - mean) / deviation
    return lambda excess: stats.norm.logsf(top) - stats.norm.logsf(top + excess / deviation)


def generalised_pareto(norm: Array) -> Drop:
    """Shape by probability-weighted moments of the top quarter (Hosking & Wallis, Technometrics 1987), in [0, 1/2]."""
    excesses = top_quarter(norm)
    m = excesses.shape[1]
    a0, a1 = excesses.mean(axis=1), (excesses * (m - np.arange(1, m + 1) + 0.35) / m).mean(axis=1)
    shape = np.clip(2 - a0 / (a0 - 2 * a1), 1e-6, 0.5)[:, None]
    at_the_maximum = (1 - shape) * a0[:, None] + shape * excesses[:, -1:]  # the scale there; the mean excess stays a0
    return lambda excess: np.log1p(shape * excess / at_the_maximum) / shape


FORMER, CHOSEN = "exponential, mean excess", "power law 2, half deviation"
EXTENSIONS: Mapping[str, Callable[[Array], Drop]] = {
    "none": lambda norm: np.zeros_like,
    FORMER: exponential(mean_excess),
    "exponential, half deviation": exponential(half_deviation),
    "generalised Pareto": generalised_pareto,
    "normal tail": normal_tail,
    "power law 1, half deviation": power_law(1, half_deviation),
    "power law 2, mean excess": power_law(2, mean_excess),
    CHOSEN: power_law(2, half_deviation),
}


def images(setting: Setting, replicates: int, rng: np.random.Generator) -> tuple[Array, dict[str, Array]]:
    """Sorted NORM scores (R, n, K), and the scores (R, m, K) of CAL, of good images and of each kind of defect."""
    norm = np.sort(setting.draw(rng, replicates, setting.n_norm), axis=1)
    groups = {"CAL": setting.draw(rng, replicates, N_CAL), "good": setting.draw(rng, replicates, N_TEST)}
    span = np.array([d.isf(0.05) - d.median() for d in setting.distributions])
    for who, (strength, spans) in itertools.product(WHO, STRENGTHS.items()):
        one = np.eye(setting.scorers)[rng.integers(setting.scorers, size=(replicates, N_TEST))]
        moved = spans * span * (one if who == "one" else 1.0)
        groups[f"{who} {strength}"] = setting.draw(rng, replicates, N_TEST) + moved
    return norm, groups


def measure(
    setting: Setting, alpha: float, replicates: int, rng: np.random.Generator
) -> Iterator[tuple[str, dict[str, Array]]]:
    """For each extension, by replicate (R,): the shares rejected, and the AUROC of each pair of strengths."""
    norm, groups = images(setting, replicates, rng)
    scores = np.concatenate(list(groups.values()), axis=1)
    levels = np.log(np.arange(setting.n_norm + 1, 1, -1) / (setting.n_norm + 1))
    within = np.empty_like(scores)
    for r, k in itertools.product(range(replicates), range(setting.scorers)):
        within[r, :, k] = np.interp(scores[r, :, k], norm[r, :, k], levels)
    excess = np.maximum(scores - norm[:, -1:], 0)
    ends = np.cumsum([g.shape[1] for g in groups.values()])[:-1]
    for name, extension in EXTENSIONS.items():
        drop = np.stack([extension(norm[..., k])(excess[..., k]) for k in range(setting.scorers)], axis=2)
        u = np.minimum(np.exp(np.maximum(within - drop, SMALLEST_LOG_RANK)), LARGEST_RANK)
        fused = (1 / np.tan(np.pi * u)).mean(axis=2)
        parts = dict(zip(groups, np.split(fused, ends, axis=1), strict=True))
        if name == CHOSEN:
            require_the_packages_order(norm[0], {n: g[0] for n, g in groups.items()}, parts)
        limit = np.sort(parts["CAL"], axis=1)[:, -significant_ranks(N_CAL, alpha), None]
        result = {group: (parts[group] > limit).mean(axis=1) for group in ("good", *POWERS)}
        for who, (low, high) in itertools.product(WHO, PAIRS):
            above = np.sign(parts[f"{who} {high}"][:, None] - parts[f"{who} {low}"][..., None])
            result[f"{who} {low} < {high}"] = 0.5 + above.mean(axis=(1, 2)) / 2
        yield name, result


def require_the_packages_order(norm: Array, groups: Mapping[str, Array], parts: Mapping[str, Array]) -> None:
    """The chosen extension is the package's: Fusion orders the first replicate's images alike."""
    names = [str(k) for k in range(norm.shape[1])]
    fusion = Fusion.fit({n: norm[:, int(n)] for n in names}, dict.fromkeys(names, (0.0, 1.0)))
    blank = np.zeros((1, 1), dtype=np.float32)
    for group in ("good", "one strong"):
        mine = [fusion.score([ImageScore(n, float(x[int(n)]), blank) for n in names]) for x in groups[group]]
        t = 1 / np.tan(np.pi * 10.0 ** -np.array(mine))
        np.testing.assert_allclose(t, parts[group][0], rtol=1e-6, atol=1e-6)


def difference(results: Results, name: str, columns: list[str], chosen: Sequence[int]) -> tuple[float, float]:
    """Mean over the settings ``chosen`` of what an extension has more than the former one, and its standard error."""
    pairs = [(results[name][i], results[FORMER][i]) for i in chosen]
    by_setting = [np.mean([mine[c] - former[c] for c in columns], axis=0) for mine, former in pairs]  # each (R,)
    variance = sum(d.var(ddof=1) / len(d) for d in by_setting)
    return float(np.mean(by_setting)), float(np.sqrt(variance)) / len(chosen)


def false_reject_band(alpha: float, replicates: int, tail: float) -> tuple[int, int]:
    """Exact two-sided band for the false rejects of one setting: a sum of independent beta-binomial counts."""
    k = significant_ranks(N_CAL, alpha)
    one = stats.betabinom(N_TEST, k, N_CAL + 1 - k).pmf(np.arange(N_TEST + 1))
    size = replicates * N_TEST + 1
    total = np.cumsum(np.fft.irfft(np.fft.rfft(one, size) ** replicates, size))
    return int(np.searchsorted(total, tail / 2)), int(np.searchsorted(total, 1 - tail / 2))


def plus_minus(value: tuple[float, float]) -> str:
    return "{:+.4f} ± {:.4f}".format(*value)


def print_table(head: list[str], rows: Mapping[str, list[str]]) -> None:
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    print("\n".join("| " + " | ".join([name, *row]) + " |" for name, row in rows.items()))


def main(alpha: float, replicates: int) -> None:
    results: Results = {name: [] for name in EXTENSIONS}
    for number, setting in enumerate(SETTINGS):
        for name, result in measure(setting, alpha, replicates, np.random.default_rng([SEED, number])):
            results[name].append(result)

    # Validity: of "none", whose ties count against significance, only the upper end is exact
    low, high = false_reject_band(alpha, replicates, 1e-6 / (len(SETTINGS) * len(EXTENSIONS)))
    for name in EXTENSIONS:
        counts = [round(float(r["good"].sum()) * N_TEST) for r in results[name]]
        assert max(counts) <= high and (name == "none" or min(counts) >= low), (name, low, high, counts)
    print(f"alpha = {alpha:g}, {len(SETTINGS)} settings, {replicates} replicates each; false rejects everywhere within")
    print(f"the exact band [{low}, {high}] of {replicates * N_TEST} (1e-6 over all settings and extensions)")

    columns = ["good", *POWERS, *ORDERS]
    table = {n: {c: np.array([r[c] for r in rs]) for c in columns} for n, rs in results.items()}  # each (settings, R)
    print_table(["extension", *columns], {n: [f"{v.mean():.3f}" for v in row.values()] for n, row in table.items()})
    errors = [np.sqrt(v.var(axis=1, ddof=1).sum() / replicates) for row in table.values() for v in row.values()]
    print(f"\nStandard error at most {max(errors) / len(SETTINGS):.4f}.")

    kinds = {f"{what}, {who}": [c for c in m if c.startswith(who)] for what, m in MEASURES.items() for who in WHO}
    rows = {}
    for name in (n for n in EXTENSIONS if n != FORMER):
        overall = [difference(results, name, m, range(len(SETTINGS))) for m in (MEASURES | kinds).values()]
        by_level = [difference(results, name, m, level) for m in MEASURES.values() for level in LEVELS.values()]
        lower = sum(mean < -3 * error for mean, error in by_level)
        rows[name] = [*map(plus_minus, overall), f"{lower} of {len(by_level)}"]
    print(f"\nLess {FORMER}:")
    print_table(["extension", *MEASURES, *kinds, "lower by 3 s.e."], rows)
    print(f"\n{CHOSEN}, less {FORMER}:")
    by_level = {
        n: [plus_minus(difference(results, CHOSEN, m, c)) for m in MEASURES.values()] for n, c in LEVELS.items()
    }
    print_table(["level", *MEASURES], by_level)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--replicates", type=int, default=300)
    main(**vars(parser.parse_args()))
