"""Memory-bank scorer: how far each patch lies from every patch seen on normal images.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore, CVPR 2022): a greedy k-centre coreset
M of normal features, and for a test patch m_test the distance to its nearest m* in M. Two additions: a patch's place
in the image is part of its feature, and the distance is judged against what is usual at that place, measured on
the reference images with their own patches left out.

The bank's members for the epistemic part of the doubt are bootstrapped: the reference images are dealt to blocks, and
a member holds the rows of the blocks that a resample with replacement drew. One search serves all members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.coreset import greedy_k_centre
from explainvad.detection.frames import gaussian_blur, to_frame, top_mean
from explainvad.detection.neighbors import nearest, nearest_by_block
from explainvad.detection.traced import Place, Spot, most_anomalous, require_traceable, traced_function
from explainvad.errors import NotFittedError
from explainvad.types import ImageScore, InspectionImage, PixelFunction, ScorerCard

MAX_CANDIDATES = 40_000  # rows that enter the coreset search; above, a random part of them does
PLACE_WEIGHT = 0.1  # distance, in the features' unit, that the whole height of an image counts for
PLACES = 24  # cells a side of the grid on which usual distances are kept
SPREAD_FLOOR = 0.5  # of the mean spread, added to the spread at a place
LEFT_OUT = 24  # reference images, at most, that measure the usual distance
SIGMA = 0.7  # patches, blur of the map
TOP = 0.004  # share of patches whose mean distance is the image's score
BLOCKS = 16  # of reference images that are resampled together
MEMBERS = 16  # bootstrapped banks
EACH_OF_FEW, CANDIDATES_OF_FEW = 400, 2000  # rows of an image, and patches they are chosen from, where each is separate


class Backbone(Protocol):
    """A frozen feature extractor."""

    name: str
    weights: str

    @property
    def facts(self) -> Mapping[str, str]:
        """What the model card says of it."""
        ...

    def features(self, image: InspectionImage) -> Tensor:
        """Features (d, rows, cols) of a grid of patches over the whole image, all of about the same length."""
        ...


class MemoryBank:
    """PatchCore-style memory bank; the unit of its score is deviations of the distance usual at a place.

    ``separate``, for few images: every image contributes rows chosen from its own patches alone, and distances are
    taken as they are. The bank of some of the images is then a part of the bank of all, so that a score against all
    of them is never larger than a score against some.
    """

    name = "memory_bank"

    def __init__(self, backbone: Backbone, rows: int, separate: bool = False) -> None:
        self.backbone, self.rows, self.separate = backbone, rows, separate
        # bank (M, d + 2), ordered by block; usual (2, PLACES, PLACES); origin (M, 3); grids (images, 2)
        self.arrays: dict[str, Tensor] = {}
        self.facts: dict[str, str] = {}

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Fill the bank; an image contributes its share of MAX_CANDIDATES, drawn at random."""
        generator = torch.Generator().manual_seed(seed)
        share = CANDIDATES_OF_FEW if self.separate else max(1, MAX_CANDIDATES // len(images))
        features, origins, places, grids, seen = [], [], [], [], 0
        for i, image in enumerate(images):
            grid = self.backbone.features(image)
            seen += grid[0].numel()
            grids.append(grid.shape[1:])
            keep = torch.randperm(grid[0].numel(), generator=generator)[:share].sort().values
            features.append(self._with_place(grid)[keep])
            place = torch.stack((keep // grid.shape[2], keep % grid.shape[2]), dim=1)
            origins.append(torch.cat((torch.full((len(keep), 1), i), place), dim=1))
            places.append(place * PLACES // torch.tensor(grid.shape[1:]))
        candidates, origin = torch.cat(features), torch.cat(origins)
        picked = self._choose(features if self.separate else [candidates], generator)
        picked = picked[torch.argsort(origin[picked, 0] % BLOCKS, stable=True)]
        bank, origin = candidates[picked].contiguous(), origin[picked].to(torch.int32)
        usual = torch.stack((torch.zeros(PLACES, PLACES), torch.ones(PLACES, PLACES)))
        if not self.separate:
            usual = _usual_distance(bank, origin[:, 0], features[:LEFT_OUT], places)
        self.arrays = {"bank": bank, "usual": usual, "origin": origin, "grids": torch.tensor(grids, dtype=torch.int32)}
        self.facts = {"bank": f"{len(picked):,} rows of {seen:,} patches from {len(images)} images"}

    def _choose(self, sets: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """Indices, over all ``sets`` in a row, of a coreset of each."""
        most = EACH_OF_FEW if self.separate else self.rows
        picked, start = [], 0
        for rows in sets:
            # features this short are compared as they are, without a projection
            picked.append(start + greedy_k_centre(rows, min(most, len(rows)), generator, rows.shape[1]))
            start += len(rows)
        return torch.cat(picked)

    def without(self, images: Sequence[int]) -> Self:
        """The bank without the rows of some of the images that it was fitted to."""
        a = self._fitted()
        kept = ~torch.isin(a["origin"][:, 0], torch.tensor(images, dtype=torch.int32))
        if not kept.any():
            raise ValueError(f"a bank needs an image, but all {len(images)} were left out")
        bank = type(self)(self.backbone, self.rows, self.separate)
        bank.arrays = a | {"bank": a["bank"][kept], "origin": a["origin"][kept]}
        bank.facts = self.facts
        return bank

    @staticmethod
    def _with_place(grid: Tensor) -> Tensor:
        """(d, rows, cols) -> (rows * cols, d + 2): features and the place, PLACE_WEIGHT to the image's height."""
        d, rows, cols = grid.shape
        y = (PLACE_WEIGHT * (torch.arange(rows) + 0.5) / rows)[:, None].expand(rows, cols)
        x = (PLACE_WEIGHT * (torch.arange(cols) + 0.5) / rows)[None].expand(rows, cols)
        return torch.cat((grid, y[None], x[None])).reshape(d + 2, -1).T

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score each image on its own.

        ``evidence``: neighbour int32 (rows, cols, 3), image and cell of each m*; reference_grids int32 (images, 2),
        rows and columns of the reference images in cells; distance float32 (rows, cols), the map before smoothing.
        """
        return [self._score(image) for image in images]

    @torch.inference_mode()
    def _score(self, image: InspectionImage) -> ImageScore:
        a = self._fitted()
        grid = self.backbone.features(image)
        edges, resamples = self._blocks()
        distance, index, by_block = nearest_by_block(self._with_place(grid), a["bank"], edges)
        mean, spread = F.interpolate(a["usual"][None], size=grid.shape[1:], mode="bilinear", align_corners=False)[0]
        apart = torch.stack([distance, *(by_block[drawn].amin(0) for drawn in resamples)])
        unusual = (apart.reshape(-1, *grid.shape[1:]) - mean) / spread
        smooth, *members = gaussian_blur(unusual, SIGMA)
        return ImageScore(
            scorer=self.name,
            value=top_mean(smooth, TOP),
            anomaly_map=to_frame(smooth, image.height, image.width),
            evidence={
                "neighbour": a["origin"][index].reshape(*grid.shape[1:], 3).numpy(),
                "distance": unusual[0].numpy(),
                **({"reference_grids": a["grids"].numpy()} if "grids" in a else {}),
            },
            members=np.array([top_mean(m, TOP) for m in members], dtype=np.float32),
            member_maps=torch.stack(members).numpy(),
        )

    def pixel_function(
        self, image: InspectionImage, score: ImageScore, baseline: InspectionImage, at: Place | None = None
    ) -> PixelFunction:
        """The deviation of the most anomalous patch's distance, or of that ``at`` a place, to the m* it has now."""
        a, backbone = self._fitted(), require_traceable(self.backbone, self.name)
        place = at or most_anomalous(score.evidence["distance"])
        spot = Spot.of(backbone.size(image), backbone.windows(image), place)
        with torch.no_grad():
            grid = self.backbone.features(image)
            rows, cols = grid.shape[1:]
            row, col = min(int(place[0] * rows), rows - 1), min(int(place[1] * cols), cols - 1)
            query = self._with_place(grid)[row * cols + col].clone()  # no inference tensor
            nearest_row = a["bank"][nearest(query[None], a["bank"])[1][0]].to(backbone.device)
            where = query[-2:].to(backbone.device)  # the same for all pixels
            usual = F.interpolate(a["usual"][None], size=(rows, cols), mode="bilinear", align_corners=False)[0]
            mean, spread = usual[:, row, col].tolist()

        def reading(levels: Sequence[Tensor]) -> Tensor:
            (features,) = levels
            inner = spot.cell(*features.shape[1:])
            patch = torch.cat((features[:, *inner], where))
            return ((patch - nearest_row).norm() - mean) / spread

        what = (
            f"distance of the patch at y {place[0]:.1%}, x {place[1]:.1%} to its nearest normal patch, in deviations "
            "usual at its place"
        )
        return traced_function(backbone, (1,), image, baseline, spot, what, reading)

    def _blocks(self) -> tuple[list[int], list[Tensor]]:
        """Where each block's rows begin and end, and the blocks that each member's resample drew."""
        blocks, sizes = torch.unique_consecutive(self._fitted()["origin"][:, 0] % BLOCKS, return_counts=True)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(blocks), (MEMBERS, len(blocks)), generator=generator)
        return [0, *sizes.cumsum(0).tolist()], [resample.unique() for resample in drawn]

    def _fitted(self) -> dict[str, Tensor]:
        if not self.arrays:
            raise NotFittedError(f"the {self.name} scorer was used before fit: call fit, or load a bundle")
        return self.arrays

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings from which :meth:`restore` makes the same scorer."""
        settings = {"rows": self.rows, "separate": self.separate, "facts": dict(self.facts)}
        return {k: v.numpy() for k, v in self._fitted().items()}, settings

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], backbone: Backbone) -> Self:
        """Rebuild a fitted bank on the same backbone."""
        scorer = cls(backbone, settings["rows"], settings["separate"])
        scorer.arrays = {k: torch.from_numpy(v) for k, v in arrays.items()}
        scorer.facts = dict(settings["facts"])
        return scorer

    def card(self) -> ScorerCard:
        """For the report's model card."""
        return ScorerCard(
            name=self.name,
            family="memory bank",
            summary="Distance of each patch to the nearest normal patch of a coreset"
            + ("" if self.separate else ", in deviations usual at its place"),
            source="Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
            weights=self.backbone.weights,
            facts={"features": self.backbone.name, **self.backbone.facts, **self.facts},
        )


def _usual_distance(bank: Tensor, owner: Tensor, features: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Mean and spread (2, PLACES, PLACES) of the distance that normal patches have at a place.

    ``features[i]`` are patches of image i at ``places[i]``, and meet rows of other images only (``owner`` != i). Cells
    are smoothed over their neighbours; parts that lie anywhere make the grid even, which is right for them.
    """
    count, total, square = torch.zeros(3, PLACES * PLACES).unbind()
    for i, (patches, place) in enumerate(zip(features, places, strict=False)):
        foreign = bank[owner != i]
        if not len(foreign):  # a single reference image: nothing to compare it with
            foreign = bank
        distance, _ = nearest(patches, foreign)
        cell = place[:, 0] * PLACES + place[:, 1]
        for moment, value in ((count, torch.ones_like(distance)), (total, distance), (square, distance.square())):
            moment.index_add_(0, cell, value)
    count, total, square = (gaussian_blur(m.reshape(PLACES, PLACES), 1.0) for m in (count, total, square))
    # a cell that no patch fell into takes the overall figures
    overall = count.sum()
    weight = 1e-3 * overall / count.numel()
    count, total, square = (m + weight * m.sum() / overall for m in (count, total, square))
    mean = total / count
    spread = (square / count - mean.square()).clamp_min(0).sqrt()
    return torch.stack((mean, spread + SPREAD_FLOOR * spread.mean() + 1e-6))
