"""The words of kept explanations, and which of them a printed page shows."""

from __future__ import annotations

from collections.abc import Iterator

from explainvad.report.wording import elide, number
from explainvad.types import XYXY, ImageRecord, KeptMap, LotReport, NearestNormal, PhraseRelevance

_NAME_CHARACTERS, _FILE_CHARACTERS, _FAILURE_CHARACTERS = 40, 60, 160


def methods_of(report: LotReport) -> tuple[str, ...]:
    """The kinds of explanations that the run was asked for."""
    asked = report.provenance.config.get("attribution")
    maps = asked.get("maps") if isinstance(asked, dict) else None
    return tuple(str(name) for name in maps) if isinstance(maps, list) else ()


def map_title(kept: KeptMap) -> str:
    """A map's name with its scorer: ``Attention rollout, memory bank``."""
    words = kept.name.replace("-", " ")
    return elide(f"{words[:1].upper()}{words[1:]}, {kept.scorer}", 2 * _NAME_CHARACTERS)


def map_words(kept: KeptMap) -> str:
    """How a map was made, what its colours mean, and its figures."""
    if kept.low == kept.high:
        scale = f"It is {number(kept.low)} everywhere."
    elif kept.signed:
        scale = f"Orange raises the number, blue lowers it; full colour stands for {number(kept.high)}."
    else:
        scale = f"Colour scale from {number(kept.low)} to {number(kept.high)}, the range of this map."
    facts = "".join(f" {name.replace('_', ' ')} {number(value)};" for name, value in kept.facts.items())
    figures = f" Figures:{facts.removesuffix(';')}." if facts else ""
    return f"{kept.method}. Explains {kept.explains}; {kept.frame}. {scale}{figures}"


def nearest_words(near: NearestNormal) -> str:
    """A patch of the image, and the normal patch that it is nearest to."""
    x0, y0, x1, y1 = near.xyxy
    whence = elide(near.reference, _FILE_CHARACTERS) or f"reference image {near.number}"
    if near.place is None:
        where = f"row {near.cell[0]}, column {near.cell[1]} of its patches"
    else:
        left, top, right, bottom = (100 * share for share in near.place)
        where = f"x {left:.0f} to {right:.0f} %, y {top:.0f} to {bottom:.0f} % of its sides"
    distance = f"distance {number(near.distance)} ({elide(near.scorer, _NAME_CHARACTERS)})"
    return f"x {x0} to {x1}, y {y0} to {y1} px is nearest to {whence}, {where}, at {distance}"


def phrase_words(phrase: PhraseRelevance) -> str:
    """How near a region is to a phrase, with what each of its words adds."""
    words = " ".join(f"{word.word} ({word.relevance:+.3f})" for word in phrase.words) or phrase.phrase
    kind = "a defect" if phrase.anomalous else "the normal state"
    near = f"cosine {phrase.similarity:.3f}, elsewhere {phrase.elsewhere:.3f}"
    return f"“{words}”, words for {kind}: {near} ({elide(phrase.scorer, _NAME_CHARACTERS)})"


def printed(record: ImageRecord) -> str:
    """The line of an image's page: the nearest normal patch that tells most; empty where there is nothing to say."""
    if record.explanation is None:
        return ""
    if record.explanation.failure:
        return f"Explanation failed: {elide(record.explanation.failure, _FAILURE_CHARACTERS)}."
    near = _telling(record)
    return f"Nearest normal patch: {nearest_words(near)}." if near is not None else ""


def _telling(record: ImageRecord) -> NearestNormal | None:
    """Of the bank with the largest share of the heaviest region's evidence the most anomalous patch that touches it.

    Where none touches it, its most anomalous patch; where there is no region, that of the first bank. Distances of two
    banks have two units, so they are never compared.
    """
    assert record.explanation is not None
    nearest = record.explanation.nearest  # of each bank, worst first
    if not nearest or not record.findings:
        return next(iter(nearest), None)
    region = record.findings[0].region
    banks = dict.fromkeys(near.scorer for near in nearest)
    bank = max(banks, key=lambda name: region.evidence_share.get(name, 0.0))
    own = [near for near in nearest if near.scorer == bank]
    return next(_touching(own, region.xyxy), own[0])


def _touching(nearest: list[NearestNormal], xyxy: XYXY) -> Iterator[NearestNormal]:
    x0, y0, x1, y1 = xyxy
    for near in nearest:
        left, top, right, bottom = near.xyxy
        if left < x1 and x0 < right and top < y1 and y0 < bottom:
            yield near
