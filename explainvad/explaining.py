"""All explanations of one image in one call: what the model's scorers can give of it, and what they cannot.

Scorers and attribution never meet: a scorer gives numbers, evidence, and its number as a function of pixels;
attribution makes maps of them in the scorer's own frames; here they are brought into the image's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.attribution.evidence import Named, grid_maps, nearest_normal, rebuilt_residual
from explainvad.attribution.prompts import phrase_relevance
from explainvad.attribution.references import ReferenceGallery
from explainvad.encoding import sixteen_bit_png
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
    Scorer,
)

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("evidence", "attention", "gradients", "prompts")
JSON_FILE = "explanation.json"
_ROLLOUT = "attention rollout, heads averaged, residual 0.5 (Abnar & Zuidema, ACL 2020)"
_WEIGHTED = "gradient-weighted attention, R + A' R (Chefer, Gur & Wolf, ICCV 2021)"
_INTEGRATED = "integrated gradients from the baseline, channels summed (Sundararajan et al., ICML 2017; captum)"
_OCCLUSION = "fall of the number where a square shows the baseline instead (Zeiler & Fergus, ECCV 2014; captum)"
_GRAD_CAM = "Grad-CAM of the last convolution before the number (Selvaraju et al., ICCV 2017; captum)"

Place = tuple[float, float]  # y, x in shares of the image's sides


def explain(
    image: InspectionImage,
    scorers: Sequence[Scorer],
    gallery: ReferenceGallery,
    named: Named,
    *,
    methods: Iterable[str] = METHODS,
    at: tuple[int, int] | None = None,
    scores: Sequence[ImageScore] = (),
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
        progress: told of each scorer.

    Raises UsageError for an unknown method or a place outside of the image.
    """
    wanted = tuple(methods)
    if unknown := sorted(set(wanted) - set(METHODS)):
        raise UsageError(f"expected methods among {', '.join(METHODS)}, got {', '.join(unknown)}")
    if at is not None and not (0 <= at[0] < image.width and 0 <= at[1] < image.height):
        raise UsageError(f"expected a place within {image.width} x {image.height} px, got x {at[0]}, y {at[1]}")
    place = None if at is None else ((at[1] + 0.5) / image.height, (at[0] + 0.5) / image.width)
    reference, picture = gallery.nearest(image)
    baseline = replace(image, pixels=_picture(picture, image.width, image.height))
    task = _Explaining(image, baseline, place, wanted, named)
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
        baseline=f"the nearest reference picture of the model, {reference.reference_id}, brought to the image's size",
    )


class _Explaining:
    """What was found so far of one image."""

    def __init__(
        self,
        image: InspectionImage,
        baseline: InspectionImage,
        place: Place | None,
        methods: Sequence[str],
        named: Named,
    ) -> None:
        self.image, self.baseline, self.place, self.methods, self.named = image, baseline, place, methods, named
        self.maps: list[AttributionMap] = []
        self.nearest: list[NearestNormal] = []
        self.phrases: list[PhraseRelevance] = []
        self.not_given: list[NotGiven] = []

    def ask(self, scorer: Scorer, score: ImageScore | None = None) -> None:
        """Everything that was asked for, of one scorer."""
        name = scorer.card().name
        if getattr(scorer, "reads_lot", False):
            self.not_given.append(NotGiven("all", name, "it compares the images of a lot with one another"))
            return
        score = score or scorer.score([self.image])[0]
        if "evidence" in self.methods:
            self._evidence(score)
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
            shown = _resized(self.image.pixels, width, height)
            grids += filter(None, [rebuilt_residual(score, shown)])
        for found in grids:
            rows, cols = found.values.shape
            frame = f"{rows} x {cols} cells over the whole image, bilinear"
            self._add(found.name, score.scorer, found.meaning, "its score", frame, self._full(found.values))
        self.nearest += (near := nearest_normal(score, self.image.width, self.image.height, self.named))
        if not near:
            self.not_given.append(NotGiven("nearest-normal", score.scorer, "it keeps no patches of reference images"))

    def _prompts(self, name: str, scorer: Scorer, score: ImageScore) -> None:
        if isinstance(scorer, Prompted):
            self.phrases += phrase_relevance(name, scorer.prompted_region(self.image, score, self.place))
        else:
            self.not_given.append(NotGiven("prompt-relevance", name, "it compares images with no words"))

    def _pixels(self, name: str, scorer: Scorer, score: ImageScore) -> None:
        """Attention and gradients, where the scorer says what it does to pixels."""
        both = [part for part in ("attention", "gradients") if part in self.methods]
        if not isinstance(scorer, Differentiable):
            reason = "it does not give its number as a differentiable function of pixels"
            self.not_given += [NotGiven(part, name, reason) for part in both]
            return
        function: PixelFunction | None = None
        with self._or_not(", ".join(both), name):
            function = scorer.pixel_function(self.image, score, self.baseline, self.place)
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
        from explainvad.attribution.gradients import PixelMap, integrated_gradients, layer_grad_cam, occlusion

        kinds: tuple[tuple[str, str, Callable[[PixelFunction], PixelMap], bool], ...] = (
            ("integrated-gradients", _INTEGRATED, integrated_gradients, True),
            ("occlusion", _OCCLUSION, occlusion, True),
            ("grad-cam", _GRAD_CAM, layer_grad_cam, False),
        )
        for kind, method, make, signed in kinds:
            with self._or_not(kind, name):
                found = make(function)
                self._of(function, kind, name, method, found.values, found.facts, signed)

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
        """Bring a map of the function's window into the image's frame."""
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
        self._add(kind, scorer, method, function.what, frame, self._full(values.numpy()), facts, signed)

    def _full(self, grid: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        from explainvad.detection.frames import to_frame

        return to_frame(torch.from_numpy(np.ascontiguousarray(grid, np.float32)), self.image.height, self.image.width)

    def _add(
        self,
        kind: str,
        scorer: str,
        method: str,
        explains: str,
        frame: str,
        values: NDArray[np.float32],
        facts: dict[str, float] | None = None,
        signed: bool = False,
    ) -> None:
        self.maps.append(AttributionMap(kind, scorer, method, explains, frame, values, signed, facts or {}))


def explanation_files(explanation: Explanation) -> dict[str, bytes]:
    """Path below a folder -> bytes: each map as 16-bit grey PNG, and JSON that says what each is.

    A grey value g stands for low + g / 65535 * (high - low); both are in the JSON.
    """
    files, maps = {}, []
    for found in explanation.maps:
        low, high = float(found.values.min()), float(found.values.max())
        name = f"{found.scorer}-{found.name}.png"
        files[name] = sixteen_bit_png(found.values, low, high)
        said = {key: getattr(found, key) for key in ("name", "scorer", "method", "explains", "frame", "signed")}
        maps.append({"file": name, **said, "low": low, "high": high, "facts": dict(found.facts)})
    said = asdict(replace(explanation, maps=())) | {"maps": maps}
    files[JSON_FILE] = (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()
    return files


def _picture(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """A kept reference picture at the size of an image, uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as stored:
        return _resized(np.asarray(stored.convert("RGB")), width, height)


def _resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
