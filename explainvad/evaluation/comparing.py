"""Two runs on the same test images, compared in pairs.

Both drew the same resamples of these images, so that the difference of a metric is resampled too: what is hard for both
cancels. It covers the choice of test images, not that of training images or seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from explainvad.errors import LotError
from explainvad.evaluation.evaluate import RESAMPLED

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """First less second, with its 95 % percentile interval.

    ``p_value`` is two-sided: twice the share of resamples on the other side of 0, none of them counting as one
    more; its smallest value is so 2 / (resamples + 1). ``adjusted`` is Holm's, over the categories of a metric.
    """

    category: str
    metric: str
    first: float
    second: float
    lower: float
    upper: float
    p_value: float
    adjusted: float

    @property
    def significant(self) -> bool:
        """Whether it stays significant at LEVEL beside the other categories."""
        return self.adjusted <= LEVEL


def compare_runs(first: Path, second: Path) -> list[Difference]:
    """All metrics that both runs define, by category: folders of ``evaluate``, or of its ``--suite``.

    Raises LotError, naming the category, when the runs were not on the same images or drew other resamples.
    """
    runs = [_resamples(folder) for folder in (first, second)]
    shared = [name for name in runs[0] if name in runs[1]]
    if not shared:
        raise LotError(f"{first} and {second} have no category in common: expected folders that evaluate wrote")
    found: list[tuple[str, str, float, float, NDArray[np.float64]]] = []
    for category in shared:
        a, b = (run[category] for run in runs)
        if not np.array_equal(a["sha256"], b["sha256"]) or a["seed"] != b["seed"]:
            raise LotError(
                f"{category or 'the runs'}: expected the same test images in the same order, and the same seed, in "
                f"{first} and {second}"
            )
        for name in sorted(a.keys() & b.keys()):
            if name in ("sha256", "seed") or name.startswith("estimate ") or len(a[name]) != len(b[name]):
                continue
            one, other = (float(run[f"estimate {name}"]) for run in (a, b))
            found.append((category, name, one, other, a[name] - b[name]))
    return _adjusted(found)


def comparison_table(differences: list[Difference]) -> str:
    """Aligned text, in per cent."""
    wide = max([8, *(len(d.category) for d in differences)])
    lines = [
        f"{'category':<{wide}}  {'metric':<14}{'first':>7}{'second':>8}{'difference':>12}  95 % interval       p (Holm)"
    ]
    for d in differences:
        interval = f"[{100 * d.lower:+.1f}, {100 * d.upper:+.1f}]"
        shown = f"{d.category:<{wide}}  {d.metric:<14}{100 * d.first:>7.1f}{100 * d.second:>8.1f}"
        mark = " *" if d.significant else ""
        lines.append(f"{shown}{100 * (d.first - d.second):>+12.1f}  {interval:<18}{d.adjusted:>9.3f}{mark}")
    lines.append(
        f"paired over the same resampled test images; * below {LEVEL:g} after Holm's correction over categories"
    )
    return "\n".join(lines)


def _adjusted(found: list[tuple[str, str, float, float, NDArray[np.float64]]]) -> list[Difference]:
    p_values = [_p_value(values) for *_, values in found]
    adjusted = np.empty(len(found))
    metrics = np.array([metric for _, metric, *_ in found])
    for metric in set(metrics.tolist()):
        of_metric = np.flatnonzero(metrics == metric)
        adjusted[of_metric] = multipletests([p_values[i] for i in of_metric], method="holm")[1]
    differences = []
    for (category, metric, a, b, values), p, holm in zip(found, p_values, adjusted, strict=True):
        lower, upper = np.nanquantile(values, [0.025, 0.975])
        differences.append(Difference(category, metric, a, b, float(lower), float(upper), p, float(holm)))
    return differences


def _p_value(differences: NDArray[np.float64]) -> float:
    known = differences[np.isfinite(differences)]
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(known) + 1))


def _resamples(folder: Path) -> dict[str, Mapping[str, NDArray[np.float64]]]:
    """By category, the empty name for a folder that is one."""
    files = (
        {"": folder / RESAMPLED}
        if (folder / RESAMPLED).is_file()
        else {path.parent.name: path for path in sorted(folder.glob(f"*/{RESAMPLED}"))}
    )
    if not files:
        raise LotError(f"{folder} holds no {RESAMPLED}: expected a folder that evaluate wrote")
    loaded: dict[str, Mapping[str, NDArray[np.float64]]] = {}
    for name, path in files.items():
        try:
            with np.load(path, allow_pickle=False) as data:
                loaded[name] = dict(data)
        except (OSError, ValueError) as error:
            raise LotError(f"{path} cannot be read ({error})") from error
    return loaded
