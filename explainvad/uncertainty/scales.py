"""What the NORM images fix: how scorers compare, how maps add up, where regions are cut, what a picture looks like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.types import ImageScore
from explainvad.uncertainty.acquisition import AcquisitionGates
from explainvad.uncertainty.decomposition import Decomposition, decompose
from explainvad.uncertainty.fusion import MAP_QUANTILES, Fusion, TailRank

PIXEL_STRIDE = 3  # every third row and column of a NORM map enters the pixel quantiles
CLUSTER_QUANTILE = 0.999  # of NORM pixels of the fused map: where regions are cut out

Scored = tuple[Sequence[ImageScore], Mapping[str, float]]  # an image's scores and acquisition features


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """Functions of one image's scores, fixed before CAL is looked at."""

    fusion: Fusion
    gates: AcquisitionGates
    cluster_threshold: float

    @classmethod
    def fit(cls, norm: Iterable[Scored]) -> Scales:
        """Fit to the scored NORM images, which are read once, in order."""
        values: dict[str, list[float]] = {}
        pixels: dict[str, list[NDArray[np.float32]]] = {}
        features: dict[str, list[float]] = {}
        for scores, acquired in norm:
            for s in scores:
                values.setdefault(s.scorer, []).append(s.value)
                pixels.setdefault(s.scorer, []).append(s.anomaly_map[::PIXEL_STRIDE, ::PIXEL_STRIDE])
            for name, value in acquired.items():
                features.setdefault(name, []).append(value)
        quantiles = {
            name: tuple(float(q) for q in np.quantile(np.concatenate([m.ravel() for m in maps]), MAP_QUANTILES))
            for name, maps in pixels.items()
        }
        fusion = Fusion.fit({n: np.array(v) for n, v in values.items()}, quantiles)  # type: ignore[arg-type]
        # The cluster threshold is a quantile of the fused map over the same pixels
        images = (dict(zip(pixels, maps, strict=True)) for maps in zip(*pixels.values(), strict=True))
        fused_pixels = np.concatenate([fusion.fuse_maps(maps).ravel() for maps in images])
        return cls(
            fusion=fusion,
            gates=AcquisitionGates.fit({n: np.array(v) for n, v in features.items()}),
            cluster_threshold=float(np.quantile(fused_pixels, CLUSTER_QUANTILE)),
        )

    def doubt(self, scores: Sequence[ImageScore]) -> Decomposition:
        """The parts of the doubt about one image, from the ranks of its scorers' members.

        Members see less than the whole (fewer reference images, a thinned decoder), which moves all of them one way;
        only their spread about the scorer's own value counts.
        """
        return decompose(
            [[self.fusion.ranks[s.scorer].log(float(v)) for v in centred(s.members, s.value)] for s in scores]
        )

    def doubt_map(self, scores: Sequence[ImageScore]) -> Decomposition:
        """The same for every cell of the coarsest member maps' grid: arrays (rows, cols).

        A pixel's log rank follows from its place between the pixel quantiles that scale the fused map, and goes
        on beyond them in a straight line (an exponential tail).
        """
        grids = [s.member_maps.shape[1:] for s in scores if len(s.member_maps)]
        grids = grids or [s.anomaly_map.shape for s in scores]
        rows, cols = (min(sides) for sides in zip(*grids, strict=True))
        tail = [np.log(1.0 - q) for q in MAP_QUANTILES]
        families = []
        for s in scores:
            maps = np.array([_shrink(m, rows, cols) for m in s.member_maps])
            whole = _shrink(s.anomaly_map, rows, cols)
            z = (centred(maps, whole) - self.fusion.map_offset[s.scorer]) / self.fusion.map_scale[s.scorer]
            families.append(np.minimum(tail[0] + z * (tail[1] - tail[0]), 0.0))
        return decompose(families)

    def state(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for the bundle's manifest."""
        return {
            "ranks": {
                n: {"ordered": r.ordered.tolist(), "log_rank": r.log_rank.tolist(), "scale": r.scale}
                for n, r in self.fusion.ranks.items()
            },
            "map_offset": dict(self.fusion.map_offset),
            "map_scale": dict(self.fusion.map_scale),
            "gate_centre": dict(self.gates.centre),
            "gate_scale": dict(self.gates.scale),
            "cluster_threshold": self.cluster_threshold,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Scales:
        """The inverse of :meth:`state`."""
        ranks = {
            n: TailRank(np.array(r["ordered"]), np.array(r["log_rank"]), r["scale"]) for n, r in state["ranks"].items()
        }
        return cls(
            Fusion(ranks, state["map_offset"], state["map_scale"]),
            AcquisitionGates(state["gate_centre"], state["gate_scale"]),
            state["cluster_threshold"],
        )


def centred(members: NDArray[Any], whole: Any) -> NDArray[np.float64]:
    """Members (B, ...) moved so that their mean is the value of the whole; ``whole`` itself where there are none."""
    if not len(members):
        return np.asarray(whole, dtype=np.float64)[None]
    return np.asarray(members - members.mean(axis=0) + whole, dtype=np.float64)


def _shrink(array: NDArray[np.float32], rows: int, cols: int) -> NDArray[np.float64]:
    """Mean over the blocks of a (rows, cols) grid laid over a larger array."""
    y, x = (np.arange(n) * size // n for n, size in zip((rows, cols), array.shape, strict=True))
    sums = np.add.reduceat(np.add.reduceat(array.astype(np.float64), y, axis=0), x, axis=1)
    count = np.diff([*y, array.shape[0]])[:, None] * np.diff([*x, array.shape[1]])[None]
    return np.asarray(sums / count)
