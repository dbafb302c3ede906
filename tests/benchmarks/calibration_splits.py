"""Does calibration keep its promises on real scores? 50 random grouped splits of each product, as a table.

    python tests/benchmarks/calibration_splits.py SCORED [--readme README.md] [--splits 50]

``SCORED`` holds what ``scored_products.py`` wrote. Every split deals whole groups to NORM, CAL, DEF and test. The table
goes between the markers of the README's evidence section, or is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from readme_section import write_section
from scipy import stats

from explainvad.evaluation.calibration import expected_calibration_error, reliability_bins
from explainvad.evaluation.resplit import Judged, judge
from explainvad.evaluation.scored import ScoredImages
from explainvad.evaluation.selective_risk import augrc, selective_risks
from explainvad.uncertainty.conformal import significant_ranks

ALPHAS, BETA = (0.01, 0.05, 0.10), 0.10
PRODUCTS = {"demo": "demo flange (generated)", "tiles": "magnetic tiles"}


def inside(count: int, m: int, n: int, level: float) -> bool:
    """Whether a count of p <= level among m is in the 95 % beta-binomial band of n calibration images."""
    k = significant_ranks(n, level)
    band = stats.betabinom(m, k, n + 1 - k)
    return bool(band.ppf(0.025) <= count <= band.isf(0.025))


def ece(judged: Judged, probabilities: NDArray[np.float64]) -> float:
    """Expected calibration error of the test images, ten bins of equal mass."""
    return expected_calibration_error(reliability_bins(judged.defective, probabilities))


def deferral(judged: Judged, uncertainty: NDArray[np.float64]) -> float:
    """AUGRC of the errors of p <= 0.05 when images are deferred by an uncertainty."""
    return augrc(selective_risks(judged.wrong, uncertainty))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean over splits, and where 95 % of them lie."""
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def rows(images: ScoredImages, splits: int) -> list[tuple[str, str]]:
    """The product's column of the table."""
    judged = [judge(images, seed, beta=BETA) for seed in range(splits)]
    first = judged[0]
    n_good = int((~first.defective).sum())
    n_bad = len(first.index) - n_good
    dealt = f"{first.n_cal}, {first.n_def}, {n_good} good + {n_bad} defective"
    table = [("images in a split: CAL, DEF, test", dealt)]
    for alpha in ALPHAS:
        rejected = [int((j.p_values[~j.defective] <= alpha).sum()) for j in judged]
        kept = np.mean([inside(count, n_good, j.n_cal, alpha) for count, j in zip(rejected, judged, strict=True)])
        rates = spread([count / n_good for count in rejected])
        table.append((f"good with p <= {alpha:g}", f"{rates}; {kept:.0%} of splits in the 95 % band"))
    missed = [int((j.defect_p_values[j.defective] <= BETA).sum()) for j in judged]
    kept = np.mean([inside(count, n_bad, j.n_def, BETA) for count, j in zip(missed, judged, strict=True)])
    rates = spread([count / n_bad for count in missed])
    table.append((f"defective with p1 <= {BETA:g}", f"{rates}; {kept:.0%} of splits in the band"))
    measures: dict[str, Callable[[Judged], float]] = {
        "defective and accepted": lambda j: float(j.accepted[j.defective].mean()),
        "found defective at p <= 0.05": lambda j: float((j.p_values[j.defective] <= 0.05).mean()),
        "deferred to a person": lambda j: float(j.deferred.mean()),
        "decided by the system (coverage)": lambda j: 1 - float(j.deferred.mean()),
        "ECE before calibration": lambda j: ece(j, j.uncalibrated),
        "ECE after (Venn-Abers)": lambda j: ece(j, j.probabilities),
        "AUGRC, deferring at random": lambda j: deferral(j, np.zeros(len(j.index))),
        "AUGRC, by score": lambda j: deferral(j, j.scores),
        "AUGRC, by closeness to 1/2 before calibration": lambda j: deferral(j, -abs(j.uncalibrated - 0.5)),
        "AUGRC, by closeness to 1/2 after": lambda j: deferral(j, -abs(j.probabilities - 0.5)),
        "AUGRC, by epistemic part within scorers": lambda j: deferral(j, j.within),
    }
    table += [(name, spread([measure(j) for j in judged])) for name, measure in measures.items()]
    for other, than in (("random", lambda j: np.zeros(len(j.index))), ("score", lambda j: j.scores)):
        gains = [deferral(j, j.within) - deferral(j, than(j)) for j in judged]
        better = np.mean(np.array(gains) < 0)
        table.append((f"epistemic less {other}, AUGRC", f"{spread(gains, 4)}; better in {better:.0%} of splits"))
    return table


def markdown(columns: dict[str, list[tuple[str, str]]]) -> str:
    """The table, a row for each quantity."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {cells[0][0]} | " + " | ".join(value for _, value in cells) + " |"
        for cells in zip(*columns.values(), strict=True)
    ]
    return "\n".join(lines)


def main() -> None:
    """Make the table of all products that were scored."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scored", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--splits", type=int, default=50)
    arguments = parser.parse_args()
    columns = {
        title: rows(ScoredImages.load(path), arguments.splits)
        for name, title in PRODUCTS.items()
        if (path := arguments.scored / f"{name}.npz").exists()
    }
    table = markdown(columns)
    if arguments.readme is None:
        print(table)
        return
    write_section(arguments.readme, "calibration table", table)


if __name__ == "__main__":
    main()
