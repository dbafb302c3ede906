"""PaDiM: how far a place's features lie from the Gaussian that normal parts have at that very place.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization" (ICPR 2021
workshops): the activations of three layers of a CNN, each repeated over the cells of the finest that it covers, and
of them d random channels; N(mu_ij, Sigma_ij + 0.01 I) at every place (i, j) (eq. 1); the Mahalanobis distance as score
(eq. 2), Gaussian sigma 4, the map's maximum for an image. Parts must lie alike in all pictures.

Moments are summed in one pass over the images, so memory does not grow with their number. Kept is U, upper triangular
with U U^T = Sigma^-1, in half precision: the distance of x is |U^T (x - mu)|. The first k numbers of U^T (x - mu) give
the distance in the first k channels, so smaller draws, the members for the scorer's own doubt, cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor

from explainvad.detection.backbones import Backbones
from explainvad.detection.frames import gaussian_blur, smooth_map, to_frame
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.errors import UsageError
from explainvad.types import ImageScore, InspectionImage, Progress

EPSILON = 0.01  # added to the variances (eq. 1)
CHANNELS = {"wide-resnet-50-2": 550}  # d of the paper
FEW_CHANNELS = 100  # d for ResNet-18, and for other backbones
BLOCKS = 4  # of channels: a member holds the first one, two or three of them
TOGETHER = 8  # images in a batch of the fit
SCATTER_BYTES = 1 << 30  # of sums in a pass over the images; more places take more passes
CHUNK = 256  # places whose factors are brought to single precision at a time


class PaDiMOptions(ScorerOptions):
    """Defaults are the paper's ResNet-18."""

    backbone: str = Field("resnet-18", description="the frozen network; wide-resnet-50-2 is the paper's larger one")
    resolution: int = Field(256, ge=32, le=2048, description="px, of the working frame's shorter side")
    layers: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="of the backbone; the finest gives the grid")
    channels: int | None = Field(
        None, ge=1, le=4096, description="channels drawn; by default 550 of wide-resnet-50-2, else 100"
    )
    stride: int = Field(1, ge=1, le=16, description="cells a side that share a Gaussian; memory falls with its square")
    sigma: float = Field(4.0, ge=0, le=64, description="px of the working frame, blur of the map")


class PaDiM(FrozenScorer[PaDiMOptions]):
    """A Gaussian a place; the unit of the score is that of a Mahalanobis distance.

    ``evidence``: distance float32 (rows, cols) on the fitted grid, not blurred.
    """

    name = "padim"
    family = "distribution"
    summary = (
        "Mahalanobis distance of each place's features to the Gaussian of normal parts at that place; parts must lie "
        "alike in all pictures"
    )
    source = "Defard et al., PaDiM, ICPR 2021 workshops"
    options_type = PaDiMOptions

    def __init__(self, options: PaDiMOptions, backbones: Backbones, progress: Progress | None = None) -> None:
        super().__init__(options, backbones, progress)
        self.extractor = backbones.extractor(options.backbone, options.resolution)
        self.extractor.request(options.layers)

    @property
    def weights(self) -> str:
        """Where the backbone's weights come from."""
        return self.extractor.weights

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Sum the moments of every place. The grid is that of the first image."""
        first = images[0]
        total = sum(map(len, self.extractor.levels(first, self.options.layers)))
        channels = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[: self._drawn(total)]
        grid = self._embedding(first, channels).shape[1:]
        step = max(1, SCATTER_BYTES // (8 * len(channels) ** 2))
        passes = [slice(start, min(start + step, grid.numel())) for start in range(0, grid.numel(), step)]
        means, factors, errors = [], [], []
        foreign = done = 0
        for places in passes:
            moments = Moments(places.stop - places.start, len(channels))
            for batch in self._batches(first, images):
                embeddings = [self._embedding(image, channels) for image in batch]
                moments.add(torch.stack([_placed(e, grid)[places] for e in embeddings]))
                if places is passes[0]:
                    foreign += sum(e.shape[1:] != grid for e in embeddings)
                done += len(batch)
                if self.progress:
                    self.progress(f"fitting {self.label}", done, len(passes) * len(images))
            means.append(moments.mean.float())
            blocks, error = whitening(moments.covariances(CHUNK), EPSILON)
            factors.append(blocks)
            errors.append(error)
            del moments  # before the next ones are made
        self.arrays = {"channels": channels, "mean": torch.cat(means).reshape(*grid, len(channels))}
        self.arrays |= {f"factor-{k}": torch.cat(blocks) for k, blocks in enumerate(zip(*factors, strict=True))}
        self.facts = self._described(len(images), total, max(errors), foreign)

    def _drawn(self, total: int) -> int:
        """d, the number of channels. Raises UsageError when more are asked for than there are."""
        o = self.options
        if o.channels is not None and o.channels > total:
            raise UsageError(
                f"{self.label}: expected at most the {total} channels of layers {o.layers} of {o.backbone}, got "
                f"channels = {o.channels}; ask for fewer, or for more layers"
            )
        return min(total, o.channels or CHANNELS.get(o.backbone, FEW_CHANNELS))

    def _batches(self, first: InspectionImage, images: Sequence[InspectionImage]) -> Iterator[list[InspectionImage]]:
        """Images that the backbone has seen together."""
        lazily = chain([first], (images[i] for i in range(1, len(images))))
        while batch := list(islice(lazily, TOGETHER)):
            self.extractor.see(batch)
            yield batch

    def _embedding(self, image: InspectionImage, channels: Tensor) -> Tensor:
        """The drawn channels (d, rows, cols), in the order of drawing, on the image's own grid."""
        levels = self.extractor.levels(image, self.options.layers)
        grid = max((level.shape[1:] for level in levels), key=torch.Size.numel)
        found, order, start = [], [], 0
        for level in levels:
            (drawn,) = torch.nonzero((channels >= start) & (channels < start + len(level)), as_tuple=True)
            found.append(F.interpolate(level[channels[drawn] - start][None], size=grid, mode="nearest")[0])
            order.append(drawn)
            start += len(level)
        embedding = torch.cat(found)[torch.cat(order).argsort()]
        stride = self.options.stride
        return F.avg_pool2d(embedding[None], stride, ceil_mode=True)[0] if stride > 1 else embedding

    def _described(self, images: int, total: int, error: float, foreign: int) -> dict[str, str]:
        rows, cols, d = self.arrays["mean"].shape
        size = sum(array.nbytes for array in self.arrays.values()) / 1e6
        facts = {
            "features": f"{d} of {total} channels of layers {', '.join(map(str, self.options.layers))} of "
            f"{self.extractor.name}",
            "distribution": f"{rows} x {cols} Gaussians from {images} images, {size:.0f} MB; half precision moves "
            f"distances of normal parts by {error:.2%} at most",
            "alignment": "every part is taken to lie in the same place of its picture",
        }
        if images <= d:
            facts["few images"] = f"{images} images cannot span {d} channels: directions unseen have variance {EPSILON}"
        if foreign:
            facts["other frames"] = f"{foreign} images had another grid, and were interpolated to this one"
        return facts

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Score one image; members are the distances of its first quarter, half and three quarters of channels."""
        a = self.fitted()
        rows, cols, d = a["mean"].shape
        factors = [a[f"factor-{k}"] for k in range(len(a) - 2)]
        x = _placed(self._embedding(image, a["channels"]), torch.Size((rows, cols))) - a["mean"].flatten(0, 1)
        share = torch.tensor([factor.shape[1] / d for factor in factors])  # a sum of squares grows with its terms
        *smaller, distance = (squared_distances(x, factors) / share[:, None]).sqrt().unflatten(1, (rows, cols))
        size = self.extractor.size(image)
        smooth = smooth_map(distance, size, self.options.sigma)
        members = [gaussian_blur(m, self.options.sigma * rows / size[0], cut=4.0) for m in smaller]
        return ImageScore(
            scorer=self.label,
            value=float(smooth.max()),
            anomaly_map=to_frame(smooth, image.height, image.width),
            evidence={"distance": distance.numpy()},
            members=np.array([float(m.max()) for m in members], dtype=np.float32),
            member_maps=torch.stack(members).numpy() if members else np.empty((0, 1, 1), np.float32),
        )


class Moments:
    """Mean (P, d) and scatter (P, d, d), float64, of P places, summed batch by batch.

    Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979): a batch's
    deviations are taken from its own mean, so that nothing cancels.
    """

    def __init__(self, places: int, d: int) -> None:
        self.count = 0
        self.mean = torch.zeros(places, d, dtype=torch.float64)
        self.scatter = torch.zeros(places, d, d, dtype=torch.float64)

    def add(self, batch: Tensor) -> None:
        """Take in (B, P, d)."""
        b, n = len(batch), self.count + len(batch)
        x = batch.double()
        centre = x.mean(0)
        shift = centre - self.mean
        # the shift of the mean enters as one more deviation
        rows = torch.cat((x - centre, (shift * (self.count * b / n) ** 0.5)[None])).transpose(0, 1)
        self.scatter.baddbmm_(rows.mT, rows)
        self.mean += shift * (b / n)
        self.count = n

    def covariances(self, chunk: int) -> Iterator[Tensor]:
        """Sample covariances (chunk, d, d), by n - 1 (eq. 1), of so many places at a time; 0 of a single image."""
        return (part / max(1, self.count - 1) for part in self.scatter.split(chunk))


def whitening(covariances: Iterable[Tensor], epsilon: float) -> tuple[list[Tensor], float]:
    """Blocks of columns of U (P, d, d), half precision, U U^T = (Sigma + epsilon I)^-1, and what the rounding costs.

    Block k has shape (P, m, m - l): columns l to m, and of them the rows that are not zero. The cost is the largest
    root mean square error of a distance, as a share of that distance's root mean square, d^1/2.
    """
    pieces: list[list[Tensor]] = []
    worst = 0.0
    for covariance in covariances:
        eye = torch.eye(covariance.shape[1], dtype=covariance.dtype)
        sigma = covariance + epsilon * eye
        u = torch.linalg.solve_triangular(torch.linalg.cholesky(sigma), eye.expand_as(sigma), upper=False).mT
        off = u - u.half()
        worst = max(worst, float(((sigma @ off) * off).sum((1, 2)).max()) / len(eye))
        edges = sorted({round(len(eye) * k / BLOCKS) for k in range(BLOCKS + 1)})
        pieces.append([u[:, :m, start:m].half().contiguous() for start, m in pairwise(edges)])
    return [torch.cat(blocks) for blocks in zip(*pieces, strict=True)], worst**0.5


def squared_distances(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Squared Mahalanobis distances (blocks, P) of the first one, two, … blocks of channels of x (P, d) from 0."""
    squares = torch.empty(len(factors), len(x))
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        for square, factor in zip(squares, factors, strict=True):
            y = torch.bmm(x[part, None, : factor.shape[1]], factor[part].float())
            square[part] = y.square_().sum((1, 2))
    return squares.cumsum(0)


def _placed(embedding: Tensor, grid: torch.Size) -> Tensor:
    """(d, rows, cols) -> (P, d) on the fitted grid."""
    if embedding.shape[1:] != grid:
        embedding = F.interpolate(embedding[None], size=grid, mode="bilinear", align_corners=False)[0]
    return embedding.flatten(1).T.contiguous()
