"""A region, measured and said in measured sentences that are checked against the measurements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explainvad.explanation.alignment import AlignedReference
from explainvad.explanation.claims import check_sentence
from explainvad.explanation.facts import measure
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import Finding, InspectionImage, Region, RegionFacts, Sentence


def measured_finding(
    image: InspectionImage,
    region: Region,
    part: NDArray[np.bool_] | None,
    exclude: NDArray[np.bool_],
    reference: AlignedReference | None = None,
) -> Finding:
    """Measure a region and say it; ``part`` (``part_mask``), ``exclude`` and ``reference`` as of facts.measure."""
    facts = measure(image, region, reference=reference, part_mask=part, exclude=exclude)
    return Finding(region, facts, measured_sentences(image, region, facts))


def measured_sentences(image: InspectionImage, region: Region, facts: RegionFacts) -> tuple[Sentence, ...]:
    """What the measured describer writes of ``facts``, each sentence checked as anybody's would be."""
    describer = MeasuredDescriber()
    texts = describer.describe(image, region, facts)
    return tuple(check_sentence(text, describer.author, facts) for text in texts)
