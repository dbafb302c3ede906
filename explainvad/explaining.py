"""All explanations of one image in one call: what the model's scorers can give of it, and what they cannot.

Scorers and attribution never meet: a scorer gives numbers, evidence, and its number as a function of pixels;
attribution makes maps of them in the scorer's own frames; here they are brought into the image's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.attribution.evidence import Named, grid_maps, nearest_normal, rebuilt_residual
from explainvad.attribution.prompts import phrase_relevance
from explainvad.attribution.references import ReferenceGallery, brought_to, decoded
from explainvad.errors import NotExplainableError, UsageError
from explainvad.types import (
    AttributionMap,
    Differentiable,
    Explanation,
    ImageScore,
    InspectionImage,
    NearestNormal,
    NotGiven,
    PhraseRelevance,
    PixelFunction,
    Progress,
    Prompted,
    ReferenceMatch,
    Scorer,
)

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("evidence", "attention", "gradients", "prompts")
_ROLLOUT = "attention rollout, heads averaged, residual 0.5 (Abnar & Zuidema, ACL 2020)"
_WEIGHTED = "gradient-weighted attention, R + A' R (Chefer, Gur & Wolf, ICCV 2021)"
_INTEGRATED = "integrated gradients from the baseline, channels summed (Sundararajan et al., ICML 2017; captum)"
_OCCLUSION = "fall of the number where a square shows the baseline instead (Zeiler & Fergus, ECCV 2014; captum)"
_GRAD_CAM = "Grad-CAM of the last convolution before the number (Selvaraju et al., ICCV 2017; captum)"

Place = tuple[float, float]  # y, x in shares of the image's sides
Reference = tuple[ReferenceMatch, bytes]  # the nearest reference picture, and its JPEG bytes


def explain(
    image: InspectionImage,
    scorers: Sequence[Scorer],
    gallery: ReferenceGallery,
    named: Named,
    *,
    methods: Iterable[str] = METHODS,
    at: tuple[int, int] | None = None,
    scores: Sequence[ImageScore] = (),
    reference: Reference | None = None,
    longest: int | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain every scorer's number of an image.

    Args:
        image: the image; it need not have been inspected.
        scorers: fitted ones.
        gallery: the reference pictures; the nearest one is what pixels are compared with.
        named: file and sha256 of a reference image by its number in the fit.
        methods: some of METHODS; those of "gradients" take many passes, the others few.
        at: (x, y), px, of the place to be explained; each scorer's most anomalous one where not given.
        scores: of this image, from the same scorers, where it was scored already.
        reference: the gallery's nearest to this image, where it was found already.
        longest: px, longer side of the maps at most; they have the image's size where not given.
        progress: told of each scorer.

    Nothing is scored and no reference is looked for that no method needs. Raises UsageError for an unknown method or a
    place outside of the image.
    """
    wanted = tuple(methods)
    if unknown := sorted(set(wanted) - set(METHODS)):
        raise UsageError(f"expected methods among {', '.join(METHODS)}, got {', '.join(unknown)}")
    if at is not None and not (0 <= at[0] < image.width and 0 <= at[1] < image.height):
        raise UsageError(f"expected a place within {image.width} x {image.height} px, got x {at[0]}, y {at[1]}")
    place = None if at is None else ((at[1] + 0.5) / image.height, (at[0] + 0.5) / image.width)
    task = _Explaining(image, lambda: reference or gallery.nearest(image), place, wanted, named, longest)
    known = {score.scorer: score for score in scores}
    for number, scorer in enumerate(scorers, start=1):
        task.ask(scorer, known.get(scorer.card().name))
        if progress:
            progress("explaining", number, len(scorers))
    return Explanation(
        image_id=image.image_id,
        file=image.file,
        maps=tuple(task.maps),
        nearest=tuple(task.nearest),
        phrases=tuple(task.phrases),
        not_given=tuple(task.not_given),
        baseline=task.compared_with,
    )


class _Explaining:
    """What was found so far of one image."""

    def __init__(
        self,
        image: InspectionImage,
        reference: Callable[[], Reference],
        place: Place | None,
        methods: Sequence[str],
        named: Named,
        longest: int | None,
    ) -> None:
        self.image, self.place, self.methods, self.named = image, place, methods, named
        self._reference = reference
        self._size = _fitting(image.height, image.width, longest)
        self.compared_with = ""
        self.maps: list[AttributionMap] = []
        self.nearest: list[NearestNormal] = []
        self.phrases: list[PhraseRelevance] = []
        self.not_given: list[NotGiven] = []

    @cached_property
    def _baseline(self) -> InspectionImage:
        """The nearest reference picture in the image's place; found, decoded and named once it is asked for."""
        match, picture = self._reference()
        self.compared_with = (
            f"the nearest reference picture of the model, {match.reference_id}, brought to the image's size"
        )
        return replace(self.image, pixels=brought_to(decoded(picture), self.image.width, self.image.height))

    def ask(self, scorer: Scorer, known: ImageScore | None = None) -> None:
        """Everything that was asked for, of one scorer."""
        name = scorer.card().name
        if getattr(scorer, "reads_lot", False):
            self.not_given.append(NotGiven("all", name, "it compares the images of a lot with one another"))
            return

        @cache
        def score() -> ImageScore:
            return known or scorer.score([self.image])[0]

        if "evidence" in self.methods:
            self._evidence(score())
        if "prompts" in self.methods:
            self._prompts(name, scorer, score)
        if {"attention", "gradients"} & set(self.methods):
            self._pixels(name, scorer, score)

    def _evidence(self, score: ImageScore) -> None:
        method = "the scorer's own map, smoothed as it is scored"
        self._add("anomaly-map", score.scorer, method, "its score", "the image's own", score.anomaly_map)
        grids = list(grid_maps(score))
        if "rebuilt" in score.evidence:
            height, width = score.evidence["rebuilt"].shape[:2]
            shown = brought_to(self.image.pixels, width, height)
            grids += filter(None, [rebuilt_residual(score, shown)])
        for found in grids:
            rows, cols = found.values.shape
            frame = f"{rows} x {cols} cells over the whole image, bilinear"
            self._add(found.name, score.scorer, found.meaning, "its score", frame, found.values)
        self.nearest += (near := nearest_normal(score, self.image.width, self.image.height, self.named))
        if not near:
            self.not_given.append(NotGiven("nearest-normal", score.scorer, "it keeps no patches of reference images"))

    def _prompts(self, name: str, scorer: Scorer, score: Callable[[], ImageScore]) -> None:
        if isinstance(scorer, Prompted):
            self.phrases += phrase_relevance(name, scorer.prompted_region(self.image, score(), self.place))
        else:
            self.not_given.append(NotGiven("prompt-relevance", name, "it compares images with no words"))

    def _pixels(self, name: str, scorer: Scorer, score: Callable[[], ImageScore]) -> None:
        """Attention and gradients, where the scorer says what it does to pixels."""
        both = [part for part in ("attention", "gradients") if part in self.methods]
        if not isinstance(scorer, Differentiable):
            reason = "it does not give its number as a differentiable function of pixels"
            self.not_given += [NotGiven(part, name, reason) for part in both]
            return
        # attention compares the image with nothing
        baseline = self._baseline if "gradients" in both else self.image
        function: PixelFunction | None = None
        with self._or_not(", ".join(both), name):
            function = scorer.pixel_function(self.image, score(), baseline, self.place)
        if function is None:
            return
        if "attention" in both:
            with self._or_not("attention", name):
                self._attention(name, function)
        if "gradients" in both:
            self._gradients(name, function)

    def _attention(self, name: str, function: PixelFunction) -> None:
        from explainvad.attribution.attention import attention_maps

        found = attention_maps(function)
        facts = {"layers": float(found.layers), "value": found.value}
        self._of(function, "attention-rollout", name, _ROLLOUT, found.rollout, facts)
        self._of(function, "gradient-weighted-attention", name, _WEIGHTED, found.gradient_weighted, facts)

    def _gradients(self, name: str, function: PixelFunction) -> None:
        from explainvad.attribution.gradients import PixelMap, ends, integrated_gradients, layer_grad_cam, occlusion

        at_both = ends(function)
        kinds: tuple[tuple[str, str, Callable[[PixelFunction], PixelMap], bool], ...] = (
            ("integrated-gradients", _INTEGRATED, integrated_gradients, True),
            ("occlusion", _OCCLUSION, occlusion, True),
            ("grad-cam", _GRAD_CAM, layer_grad_cam, False),
        )
        for kind, method, make, signed in kinds:
            with self._or_not(kind, name):
                found = make(function)
                self._of(function, kind, name, method, found.values, at_both | found.facts, signed)

    @contextmanager
    def _or_not(self, kind: str, scorer: str) -> Iterator[None]:
        """Note what cannot be given, and why."""
        try:
            yield
        except NotExplainableError as error:
            self.not_given.append(NotGiven(kind, scorer, str(error)))

    def _of(
        self,
        function: PixelFunction,
        kind: str,
        scorer: str,
        method: str,
        values: Tensor,
        facts: dict[str, float],
        signed: bool = False,
    ) -> None:
        """Bring a map of the function's window into the whole working frame."""
        import torch
        import torch.nn.functional as F  # noqa: N812

        (height, width), (y, x) = function.size, function.window
        rows, cols = values.shape
        frame = f"{rows} x {cols} cells over a working frame of {height} x {width} px, bilinear"
        if (y.stop - y.start, x.stop - x.start) != (height, width):
            seen = f"rows {y.start} to {y.stop} and columns {x.start} to {x.stop}"
            frame = f"{rows} x {cols} cells over {seen} of a working frame of {height} x {width} px, 0 elsewhere"
            window = F.interpolate(values[None, None], (y.stop - y.start, x.stop - x.start), mode="bilinear")
            values = torch.zeros(height, width)
            values[y, x] = window[0, 0]
        self._add(kind, scorer, method, function.what, frame, values.numpy(), facts, signed)

    def _add(
        self,
        kind: str,
        scorer: str,
        method: str,
        explains: str,
        frame: str,
        grid: NDArray[np.float32],
        facts: Mapping[str, float] | None = None,
        signed: bool = False,
    ) -> None:
        """Keep what is computed on ``grid``, cells over the whole image; or note that it is not sound."""
        facts = facts or {}
        if reason := _unsound(grid, facts):
            self.not_given.append(NotGiven(kind, scorer, reason))
            return
        height, width = self._size
        frame = f"{frame}, at {width} x {height} px"
        values = _over_image(grid, self._size)
        self.maps.append(AttributionMap(kind, scorer, method, explains, frame, values, signed, facts))


def _fitting(height: int, width: int, longest: int | None) -> tuple[int, int]:
    """Rows and columns of the largest picture of these proportions with no side above ``longest``."""
    factor = 1.0 if longest is None else min(1.0, longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _over_image(grid: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Cells over the whole image at ``size`` (rows, cols): bilinear, or the mean of cells that are finer than that."""
    if any(cells > side for cells, side in zip(grid.shape, size, strict=True)):
        # the mean, so that nothing is skipped
        return np.asarray(Image.fromarray(grid).resize(size[::-1], Image.Resampling.BOX))
    import torch

    from explainvad.detection.frames import to_frame

    return grid if grid.shape == size else to_frame(torch.from_numpy(np.ascontiguousarray(grid)), *size)


def _unsound(grid: NDArray[np.float32], facts: Mapping[str, float]) -> str:
    """Why a map cannot be shown; empty where it can."""
    if named := [name for name, value in facts.items() if not math.isfinite(value)]:
        return f"its figures are not finite: {', '.join(named)}"
    if count := int((~np.isfinite(grid)).sum()):
        return f"{count} of its {grid.size} values are not finite"
    return ""
