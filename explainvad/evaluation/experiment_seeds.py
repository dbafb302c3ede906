"""A trained network against the same one untrained, whose luck the spread over random initialisations shows.

The bootstrap of :class:`Comparison` covers the choice of test images and says nothing of the choice of a seed. So a
gain counts only where it is shown over every seed that was tried, and only where it is larger than what seeds differ
by among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from explainvad.evaluation.differences import Direction, direction
from explainvad.evaluation.experiments import Comparison


@dataclass(frozen=True, slots=True)
class AgainstSeeds:
    """One trained arm and several untrained ones, by their names, on one group of defects and one metric."""

    comparison: Comparison
    trained: str
    seeds: Sequence[str]
    group: str
    metric: str

    @property
    def estimates(self) -> dict[str, float]:
        """Of the seeds; empty where the data cannot define the metric."""
        found = {seed: self.comparison.interval(seed, self.group, self.metric) for seed in self.seeds}
        return {seed: interval.estimate for seed, interval in found.items() if interval is not None}

    @property
    def best_seed(self) -> str:
        """The luckiest of them, the hardest to beat."""
        estimates = self.estimates
        return max(self.seeds, key=lambda seed: estimates.get(seed, 0.0))

    @property
    def spread(self) -> float:
        """What seeds differ by among themselves."""
        values = self.estimates.values()
        return max(values, default=0.0) - min(values, default=0.0)

    @property
    def beyond_seeds(self) -> bool:
        """Whether the trained arm is farther from the nearest seed than seeds are from one another."""
        interval = self.comparison.interval(self.trained, self.group, self.metric)
        values = self.estimates.values()
        return (
            interval is not None
            and bool(values)
            and min(abs(interval.estimate - value) for value in values) > self.spread
        )

    @property
    def direction(self) -> Direction:
        """Shown where the difference to every seed is shown, the same way, and is beyond what seeds differ by."""
        ways = {
            direction(self.comparison.difference(self.trained, seed, self.group, self.metric)) for seed in self.seeds
        }
        return ways.pop() if len(ways) == 1 and self.beyond_seeds else "not shown"

    def sentence(self) -> str:
        """The difference to the best seed."""
        return self.comparison.sentence(self.trained, self.best_seed, self.group, self.metric)

    def noise(self) -> str:
        """What seeds say among themselves, in a sentence."""
        values = self.estimates.values()
        if not values:
            return f"{self.metric} on {self.group} defects is not defined for the seeds."
        return (
            f"{self.metric} on {self.group} defects of {len(values)} random initialisations: {min(values):.2f} to "
            f"{max(values):.2f}."
        )
