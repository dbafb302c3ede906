"""What a run keeps of the explanations of a flagged image: pictures of the maps, and in words all that goes with them.

An explanation decides nothing, so it must not cost a verdict either: whatever fails in one is recorded with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.encoding import encoded, grey_levels
from explainvad.types import AttributionMap, Explanation, ImageRecord, KeptExplanation, KeptMap, NotGiven

FOLDER = "attributions"
SIDE = 512  # px, longest side of a kept picture; maps come from grids that are coarser by far
_REASON = 300  # characters of an error that are kept
_ZERO = 128  # grey value of 0 in a signed map

Kept = tuple[KeptExplanation, dict[str, bytes]]


def kept_explanation(
    record: ImageRecord, methods: Sequence[str], explain: Callable[[tuple[int, int] | None], Explanation]
) -> Kept:
    """Explain a flagged image. Returns what its record keeps, and the pictures (path below the run folder -> bytes).

    ``explain`` is asked about the peak of the heaviest region, or, with None where there is no region, about each
    scorer's own most anomalous place.
    """
    at = record.findings[0].region.peak_xy if record.findings else None
    try:
        return _kept(record.image_id, tuple(methods), explain(at), at)
    except Exception as error:  # of any model, any memory: the verdict stands, and the reason is recorded
        words = " ".join(str(error).split())[:_REASON] or "no message"
        return KeptExplanation(tuple(methods), at=at, failure=f"{type(error).__name__}: {words}"), {}


def failed(records: Iterable[ImageRecord]) -> Iterator[str]:
    """The line of the report that says how many explanations failed: from records, so a resumed run says it too."""
    explained = [record for record in records if record.explanation is not None]
    failures = [(r.image_id, r.explanation.failure) for r in explained if r.explanation and r.explanation.failure]
    if failures:
        yield (
            f"explanations failed for {len(failures)} of {len(explained)} flagged images, which keep their verdicts; "
            f"the first, {failures[0][0]}: {failures[0][1]}"
        )


def _kept(image_id: str, methods: tuple[str, ...], explanation: Explanation, at: tuple[int, int] | None) -> Kept:
    maps: list[KeptMap] = []
    files: dict[str, bytes] = {}
    not_given = list(explanation.not_given)
    for found in explanation.maps:
        if unsound := [name for name, value in found.facts.items() if not math.isfinite(value)]:
            not_given.append(NotGiven(found.name, found.scorer, f"its figures are not finite: {', '.join(unsound)}"))
            continue
        path = f"{FOLDER}/{image_id}-{len(maps) + 1:02}.png"
        low, high, files[path] = _picture(found)
        maps.append(
            KeptMap(
                name=found.name,
                scorer=found.scorer,
                method=found.method,
                explains=found.explains,
                frame=found.frame,
                path=path,
                low=low,
                high=high,
                signed=found.signed,
                facts=dict(found.facts),
            )
        )
    kept = KeptExplanation(
        methods,
        tuple(maps),
        explanation.nearest,
        explanation.phrases,
        tuple(not_given),
        explanation.baseline,
        at,
    )
    return kept, files


def _picture(found: AttributionMap) -> tuple[float, float, bytes]:
    """What the grey values 0 and 255 stand for, and the PNG."""
    values = _shrunk(found.values)
    if found.signed:
        # 255 stands for the largest magnitude and 1 for its negative, so that 0 is a grey value of its own
        largest = float(np.abs(values).max())
        low, high = -largest * _ZERO / (255 - _ZERO), largest
    else:
        low, high = float(values.min()), float(values.max())
    grey = grey_levels(values, low, high, 255).astype(np.uint8)
    return low, high, encoded(Image.fromarray(grey), "PNG", optimize=True)


def _shrunk(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most SIDE px on the longer side; a pixel is the mean of what it covers, so that nothing is skipped."""
    height, width = values.shape
    factor = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))
