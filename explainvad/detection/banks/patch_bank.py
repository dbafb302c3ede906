"""What all memory banks of patches share: filling, searching, leaving images out, growing, and doubt.

A bank M is a greedy k-centre coreset of the patches of normal images (Roth et al., "Towards Total Recall in Industrial
Anomaly Detection", CVPR 2022, alg. 1), and a test patch m_test is as anomalous as it is far from its nearest m* in M.
Images are read one by one and their patches reduced as they come. Rows are kept, and searched, in half precision.

Members for the epistemic part of the doubt are bootstrapped banks: the images are dealt to BLOCKS, and a member holds
the rows of the blocks that a resample with replacement drew. One search serves them all.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from explainvad.detection.backbones import FINAL, Backbones
from explainvad.detection.banks.bank_rows import Chosen, beyond, nearest_pair, of_all, of_each
from explainvad.detection.banks.searches import Search, make_search, prepare_search
from explainvad.detection.banks.traced_patch import patch_function
from explainvad.detection.banks.views import View
from explainvad.detection.coreset import greedy_k_centre
from explainvad.detection.frames import gaussian_blur, smooth_map, to_frame
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.detection.traced import Place
from explainvad.errors import UsageError
from explainvad.types import ImageScore, InspectionImage, PixelFunction, Progress

SIGMA = 4.0  # px of the working frame, blur of the map
BLOCKS = 16  # of reference images that are resampled together
MEMBERS = 16  # bootstrapped banks
LARGEST = torch.finfo(torch.float16).max  # of features
BATCH = 2  # views of reference images that go through the backbone together; more take memory, not less time


class BankOptions(ScorerOptions):
    """What memory banks may be told."""

    backbone: str = Field(description="the frozen network whose features are kept")
    resolution: int = Field(256, ge=32, le=2048, description="px, of the working frame's shorter side")
    share: float = Field(0.1, gt=0, le=1, description="of the reference patches, that the bank keeps")
    max_rows: int = Field(16_384, ge=1, le=2_000_000, description="of the bank, however many patches there are")


Options = TypeVar("Options", bound=BankOptions)


class PatchBank(FrozenScorer[Options], Generic[Options]):
    """A memory bank; scorers say what a patch is and what the image's score is.

    ``separate``, for few images: every image contributes max_rows / images rows chosen from its own patches alone. The
    bank of some of the images is then a part of the bank of all, so that a score against all of them is never larger
    than a score against some.
    """

    family = "memory bank"
    few_images = True
    extendable = True
    quantised = False  # whether a bank of any size is searched by its product quantisation
    prepared: ClassVar[tuple[str, ...]] = ()  # names of the arrays that `prepare` gives

    def __init__(self, options: Options, backbones: Backbones, progress: Progress | None = None) -> None:
        super().__init__(options, backbones, progress)
        self.extractor = backbones.extractor(options.backbone, options.resolution)
        self.layers = self.chosen_layers()
        self.extractor.request(self.layers)
        self._search: Search | None = None  # made of the arrays at first use
        self._grids: list[tuple[int, int]] = []  # of the images read last

    @property
    def weights(self) -> str:
        """For the report."""
        return self.extractor.weights

    @abstractmethod
    def chosen_layers(self) -> tuple[int, ...]:
        """The backbone's layers that patches are made of."""

    @abstractmethod
    def assembled(self, levels: Sequence[Tensor]) -> Tensor:
        """Patches (d, rows, cols), float32, of the layers' features (d, rows, cols)."""

    def patches(self, image: InspectionImage) -> Tensor:
        """Features (d, rows, cols), float32, of a grid of patches over the whole image."""
        return self.assembled(self.extractor.levels(image, self.layers))

    @abstractmethod
    def image_score(self, distance: Tensor) -> float:
        """The score of an image whose patches lie at these distances (rows, cols)."""

    def measure(self, distance: Tensor) -> Tensor:
        """The scorer's distance, from the Euclidean one; it must grow with it."""
        return distance

    def weight(self, query: Tensor, distance: float, index: int) -> float:
        """Factor on the image's score, of its worst patch (d,) at ``distance`` from row ``index`` of the bank."""
        return 1.0

    def visible(self, grid: Tensor) -> Tensor | None:
        """Which patches of features (d, rows, cols) count, bool (rows, cols); None for all."""
        return None

    def views(self, image: InspectionImage) -> Sequence[View]:
        """What a reference image contributes: itself, or also turned copies."""
        return [View(image)]

    def prepare(self, images: Sequence[InspectionImage]) -> dict[str, Tensor]:
        """What must be learnt before the bank is filled."""
        return {}

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Fill the bank, reading each image once. The same images, seed and machine give the same arrays."""
        generator = torch.Generator().manual_seed(seed)
        layers = ", ".join("last" if layer == FINAL else str(layer) for layer in self.layers)
        self.facts = {"features": f"{self.extractor.name}, layers {layers}", **self.extractor.facts}
        self.arrays = self.prepare(images)
        parts, most = self._read(images, 0), self.options.max_rows
        if self.separate:
            chosen = of_each(parts, max(1, most // len(images)), generator)
        else:
            chosen = of_all(parts, self.options.share, most, generator)
        self._keep(chosen, len(images), seed)

    def _read(self, images: Sequence[InspectionImage], first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each image its patches (n, d) and their origins (n, 3): its number, from ``first`` on, and the cell."""
        batch: list[tuple[int, Sequence[View]]] = []
        self._grids = []
        for i in range(len(images)):
            batch.append((first + i, self.views(images[i])))
            if i + 1 < len(images) and sum(len(views) for _, views in batch) < BATCH:
                continue
            self.extractor.see([view.image for _, views in batch for view in views])
            for number, views in batch:
                shown = [self._shown(view) for view in views]
                patches, cells = torch.cat([part[0] for part in shown]), torch.cat([part[1] for part in shown])
                self._grids.append(shown[0][2])  # the first view is not turned
                yield patches, torch.cat((torch.full((len(cells), 1), number), cells), dim=1)
            batch = []
            if self.progress:
                self.progress(f"filling {self.label}", i + 1, len(images))

    def _shown(self, view: View) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The patches (n, d) of a view that lie within its image and count, their cells (n, 2), and the view's grid."""
        grid = self.patches(view.image)
        low, high = grid.aminmax()
        if not (float(low) >= -LARGEST and float(high) <= LARGEST):
            raise UsageError(
                f"{self.label}: features of {self.extractor.name} are not finite, or larger than half precision holds "
                f"({LARGEST:,.0f}): use other layers or another backbone"
            )
        rows, cols = grid.shape[1:]
        cells = view.cells(rows, cols)
        shown = cells[..., 0] >= 0
        if (visible := self.visible(grid)) is not None:
            shown &= visible
        if shown.all():
            return rows_of(grid), cells.flatten(0, 1), (rows, cols)
        return rows_of(grid)[shown.flatten()], cells[shown], (rows, cols)

    def _keep(self, chosen: Chosen, images: int, seed: int) -> None:
        """Make arrays and facts of the bank's rows, ordered by block."""
        order = torch.argsort(chosen.origin[:, 0] % BLOCKS, stable=True)
        bank, self._search = chosen.rows[order], None
        searched, facts = prepare_search(
            bank, exact=self.separate, quantised=self.quantised, seed=seed, held_out=chosen.left
        )
        prepared = {name: self.arrays[name] for name in self.prepared if name in self.arrays}
        read = torch.tensor(self._grids, dtype=torch.int32)
        before = self.arrays.get("grids", read.new_zeros(images - len(read), 2))  # 0 x 0 where a bank did not note it
        self.arrays = (
            prepared
            | searched
            | {
                "origin": chosen.origin[order].to(torch.int32),
                "grids": torch.cat((before, read)),
                "counts": torch.tensor([images, chosen.seen]),
            }
        )
        text = f"{len(bank):,} rows of {chosen.seen:,} patches from {images} images"
        if not self.separate and (share := round(self.options.share * chosen.seen)) > self.options.max_rows:
            text += f", the most it may have; a share of {self.options.share:g} would be {share:,}"
        self.facts |= {"bank": text, **facts}

    def load(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
        """The inverse of ``state``."""
        super().load(arrays, facts)
        self._search = None

    def without(self, images: Sequence[int]) -> Self:
        """The bank without the rows of some of the images that it was fitted to, separately."""
        if not self.separate:
            raise ValueError(f"{self.label} chose its rows from all images together: set `separate` before fit")
        a = self.fitted()
        kept = ~torch.isin(a["origin"][:, 0], torch.tensor(images, dtype=torch.int32))
        if not kept.any():
            raise ValueError(f"a bank needs an image, but all {len(images)} were left out")
        rest = copy(self)
        rest.arrays, rest._search = a | {"bank": a["bank"][kept], "origin": a["origin"][kept]}, None
        return rest

    def extend(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Go on with the greedy choice on further images, whose numbers follow those of the old ones.

        The choice takes the patch that lies farthest from the bank, so the bank's rows lie at least as far apart as any
        patch seen lies from its nearest row: the smallest distance between rows bounds the bank's radius. Of a new
        image only what lies farther is taken, its ``share`` at most; above max_rows the bank is reduced again.
        """
        o, origin = self.options, self.fitted()["origin"].to(torch.int64)
        first, seen = self.arrays["counts"].tolist()
        generator, parts = torch.Generator().manual_seed(seed), self._read(images, first)
        if self.separate:
            new, rule = of_each(parts, int(origin[:, 0].bincount().max()), generator), "each by itself"
        else:
            search = self._searching()
            radius = nearest_pair(search.bank.float())
            new, rule = beyond(parts, search, radius, o.share), f"those farther than {radius:.4g} from every row"
        chosen = Chosen(torch.cat((self.arrays["bank"], new.rows)), torch.cat((origin, new.origin)), seen + new.seen)
        if not self.separate:
            chosen = chosen[greedy_k_centre(chosen.rows, o.max_rows, generator)]
        self._keep(chosen, first + len(images), seed)
        note = f"{len(new.rows):,} rows of {len(images)} further images, {rule}"
        self.facts["extended"] = "; ".join(filter(None, (self.facts.get("extended"), note)))

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Score one image; the map is the distance of each patch, smoothed.

        ``evidence``: ``neighbour`` int32 (rows, cols, 3), image and cell of each m*; ``reference_grids`` int32
        (images, 2), rows and columns of the reference images in cells; ``distance`` float32 (rows, cols).
        """
        grid = self.patches(image)
        rows, cols = grid.shape[1:]
        queries = rows_of(grid)
        found = self._searching()(queries)
        maps = self.measure(torch.stack((found.distance, *(found.by_block[drawn].amin(0) for drawn in self._drawn))))
        maps = maps.reshape(-1, rows, cols)
        if (visible := self.visible(grid)) is not None:
            maps = maps * visible
        worst = int(maps[0].argmax())
        weight = self.weight(queries[worst], float(found.distance[worst]), int(found.index[worst]))
        value, *members = (weight * self.image_score(distance) for distance in maps)
        size = self.extractor.size(image)
        sigma = SIGMA * rows / size[0]  # patches
        return ImageScore(
            scorer=self.label,
            value=value,
            anomaly_map=to_frame(smooth_map(maps[0], size, SIGMA), image.height, image.width),
            evidence={
                "neighbour": self.arrays["origin"][found.index].reshape(rows, cols, 3).numpy(),
                "distance": maps[0].numpy(),
                **({"reference_grids": self.arrays["grids"].numpy()} if "grids" in self.arrays else {}),
            },
            members=np.array(members, dtype=np.float32),
            member_maps=gaussian_blur(maps[1:], sigma).numpy(),
        )

    def pixel_function(
        self, image: InspectionImage, score: ImageScore, baseline: InspectionImage, at: Place | None = None
    ) -> PixelFunction:
        """The distance of the most anomalous patch, or of that ``at`` a place, to the m* it has now."""
        return patch_function(self, self._searching(), image, score, baseline, at)

    def latency(self, image: InspectionImage) -> tuple[float, float, int]:
        """Seconds of all that follows the backbone's pass, and of that pass; and the bank's rows."""
        started = time.perf_counter()
        self.extractor.see([image])
        seen = time.perf_counter()
        self.score([image])
        return time.perf_counter() - seen, seen - started, len(self.arrays["bank"])

    def _searching(self) -> Search:
        """The search over the bank's rows, and the blocks that each member drew."""
        if self._search is None:
            a = self.fitted()
            blocks, sizes = torch.unique_consecutive(a["origin"][:, 0] % BLOCKS, return_counts=True)
            generator = torch.Generator().manual_seed(0)
            drawn = torch.randint(len(blocks), (MEMBERS, len(blocks)), generator=generator)
            self._drawn = [resample.unique() for resample in drawn]
            edges = [0, *sizes.cumsum(0).tolist()]
            self._search = make_search(a, self.facts, edges)
        return self._search


def rows_of(grid: Tensor) -> Tensor:
    """(d, rows, cols) -> (rows * cols, d); no copy where channels come last in memory."""
    return grid.permute(1, 2, 0).reshape(-1, grid.shape[0])
