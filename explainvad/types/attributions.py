"""What a scorer's number comes from: maps in the image's frame, nearest normal patches, words, and what is lacking."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from explainvad.types.images import XYXY, require

if TYPE_CHECKING:  # values need numpy only; what is a tensor is held, never looked into
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class PixelFunction:
    """One number of a scorer as a differentiable function of the pixels that its network sees.

    A frame is what the network takes: float32 (3, rows, cols), normalised, on the network's device. Of a large image it
    is one ``window`` of the working frame, that in whose middle the explained place lies.
    """

    what: str  # the number in words, with its unit
    value: Callable[[Tensor], Tensor]  # frames (B, 3, rows, cols) -> (B,)
    frame: Tensor  # of the image
    baseline: Tensor  # of what the image is compared with, same shape
    size: tuple[int, int]  # rows and columns of the whole working frame, px
    window: tuple[slice, slice]  # rows and columns of the working frame that ``frame`` shows, px
    network: nn.Module  # that is asked; its attention may be read
    prefix: int = 0  # tokens before those of the patches: class and registers
    grid: tuple[int, int] | None = None  # rows and columns of the patches that attend; None where none do
    token: tuple[int, int] | None = None  # patch of ``grid`` that the number is about; None: the class token
    layer: nn.Module | None = None  # last convolution before the number, (B, channels, rows, cols)

    def __post_init__(self) -> None:
        seen = [(side.start, side.stop) for side in self.window]
        require(
            all(0 <= start < stop <= side for (start, stop), side in zip(seen, self.size, strict=True)),
            f"window must lie in a working frame of {self.size} px, got rows and columns {seen}",
        )
        expected = (3, *(stop - start for start, stop in seen))
        require(
            tuple(self.frame.shape) == tuple(self.baseline.shape) == expected,
            f"frame and baseline must have the shape {expected} of the window, got {tuple(self.frame.shape)} and "
            f"{tuple(self.baseline.shape)}",
        )


@dataclass(frozen=True, slots=True, eq=False)
class PromptedRegion:
    """A region in the space of texts, beside the phrases that a scorer asks. P phrases; rows of d numbers."""

    phrases: tuple[tuple[str, bool], ...]  # text, and whether it speaks of a defect
    similarity: NDArray[np.float32]  # (P,) mean cosine of the windows that cover the region
    elsewhere: NDArray[np.float32]  # (P,) the same, mean over all patches of the image
    region: NDArray[np.float32]  # (d,) mean embedding of those windows, each of unit length
    embed: Callable[[Sequence[str]], NDArray[np.float32]]  # texts -> (n, d) of unit length


@dataclass(frozen=True, slots=True, eq=False)
class AttributionMap:
    """One map of what a number comes from. ``values`` is float32 (H, W), in the method's unit.

    It lies over the whole image, at its size or smaller, as ``frame`` states. All values and figures are finite. With
    ``signed``, values above 0 raise the number and values below 0 lower it; else only their order counts.
    """

    name: str  # "attention-rollout"
    scorer: str
    method: str  # what was done, and after which paper
    explains: str  # which number of the scorer
    frame: str  # on which grid it was computed, how it came over the image, and at which size
    values: NDArray[np.float32]
    signed: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)  # "convergence_delta", "value", "baseline_value"

    def __post_init__(self) -> None:
        v = self.values
        require(
            v.dtype == np.float32 and v.ndim == 2 and bool(np.isfinite(v).all()),
            f"values of {self.name} must be finite float32 with shape (H, W), got {v.dtype} {v.shape}",
        )
        require(
            all(map(math.isfinite, self.facts.values())), f"facts of {self.name} must be finite, got {dict(self.facts)}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class NearestNormal:
    """A patch of the image and the normal patch that it is nearest to; ``distance`` is the scorer's own."""

    scorer: str
    xyxy: XYXY  # of the patch, px of the image, half-open
    distance: float
    reference: str  # file of the reference image, escaped for display; empty where the model did not keep it
    sha256: str  # of that file; empty where unknown
    number: int  # of the reference image, in the order of the fit
    cell: tuple[int, int]  # row and column of the normal patch, in patches of its image
    place: tuple[float, float, float, float] | None  # x0, y0, x1, y1 of that patch in shares of its image's sides


@dataclass(frozen=True, slots=True, eq=False)
class WordRelevance:
    """What a word of a prompt adds to the similarity of a region: the cosine with it minus that without it."""

    word: str
    relevance: float


@dataclass(frozen=True, slots=True, eq=False)
class PhraseRelevance:
    """How near a region is to one phrase, and which of its words make it so."""

    scorer: str
    phrase: str
    anomalous: bool  # whether the phrase speaks of a defect
    similarity: float  # mean cosine of the windows that cover the region
    elsewhere: float  # the same, mean over all patches of the image
    words: tuple[WordRelevance, ...]  # in reading order


@dataclass(frozen=True, slots=True, eq=False)
class NotGiven:
    """An explanation that a scorer cannot give, and why."""

    name: str  # of the method
    scorer: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """All explanations of one image that a model's scorers can give, and what they cannot."""

    image_id: str
    file: str
    maps: tuple[AttributionMap, ...]
    nearest: tuple[NearestNormal, ...]  # of each bank the most anomalous patches, worst first
    phrases: tuple[PhraseRelevance, ...]
    not_given: tuple[NotGiven, ...]
    baseline: str  # what pixels were compared with; empty where no method compares


@dataclass(frozen=True, slots=True, eq=False)
class KeptMap:
    """An AttributionMap as a run keeps it: what it is, and the picture of it. Free of arrays.

    ``path`` is that of a grey PNG of 8 bits, no larger than the image and in its frame, whose grey value g stands for
    low + g / 255 * (high - low), in the method's unit. With ``signed`` the grey value 128 stands for 0. Where ``low``
    and ``high`` are equal, that is the map's value everywhere.
    """

    name: str
    scorer: str
    method: str
    explains: str
    frame: str
    path: str  # below the run folder; an artifact of the record
    low: float
    high: float
    signed: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.low <= self.high, f"low must be at most high, got {self.low} and {self.high} of {self.name}")


@dataclass(frozen=True, slots=True, eq=False)
class KeptExplanation:
    """What a run keeps of the Explanation of a flagged image; no verdict rests on it.

    ``failure`` says why there is none; then everything else is empty.
    """

    methods: tuple[str, ...]  # that were asked for
    maps: tuple[KeptMap, ...] = ()
    nearest: tuple[NearestNormal, ...] = ()
    phrases: tuple[PhraseRelevance, ...] = ()
    not_given: tuple[NotGiven, ...] = ()
    baseline: str = ""
    at: tuple[int, int] | None = None  # x, y, px of the explained place; None: each scorer's most anomalous one
    failure: str = ""
