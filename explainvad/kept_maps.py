"""What a run keeps of the explanations of a flagged image: pictures of the maps, and in words all that goes with them.

An explanation decides nothing, so it must not cost a verdict either: whatever fails in one is recorded with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from explainvad.encoding import encoded, grey_levels
from explainvad.types import AttributionMap, Explanation, ImageRecord, KeptExplanation, KeptMap

FOLDER = "attributions"
SIDE = 512  # px, longest side of the maps that a run makes; they come from grids that are coarser by far
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
    for number, found in enumerate(explanation.maps, start=1):
        path = f"{FOLDER}/{image_id}-{number:02}.png"
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
        explanation.not_given,
        explanation.baseline,
        at,
    )
    return kept, files


def _picture(found: AttributionMap) -> tuple[float, float, bytes]:
    """What the grey values 0 and 255 stand for, and the PNG."""
    values = found.values
    if found.signed:
        # 255 stands for the largest magnitude and 1 for its negative, so that 0 is a grey value of its own
        high = float(np.abs(values).max())
        low = -high * _ZERO / (255 - _ZERO) if high else 0.0
    else:
        low, high = float(values.min()), float(values.max())
    grey = grey_levels(values, low, high, 255).astype(np.uint8)
    if found.signed and not high:
        grey[:] = _ZERO  # also where there is no scale
    return low, high, encoded(Image.fromarray(grey), "PNG", optimize=True)
