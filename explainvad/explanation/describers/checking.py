"""From an answer to sentences that a report may print: every one is compared with what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from explainvad.explanation.bands import BANDS
from explainvad.explanation.claims import verify
from explainvad.explanation.colour import BRIGHTER, DARKER, NO_BASELINE
from explainvad.explanation.describers.answer import SAME, SIZES, UNDETERMINED, Answer
from explainvad.types import Claim, ClaimStatus, RegionFacts, Sentence

_LABELS = {
    ClaimStatus.SUPPORTED: "Chosen words",
    ClaimStatus.PARTLY: "Chosen words",
    ClaimStatus.CONTRADICTED: "Chosen words",
    ClaimStatus.UNVERIFIABLE: "Opinion, not measured",
}


def checked_sentences(answer: Answer, facts: RegionFacts, author: str, echo: str | None) -> tuple[Sentence, ...]:
    """The sentences of ``answer``: its texts, read by :func:`verify`, and its chosen words, compared with the facts.

    ``echo`` is the author of sentences that only repeat facts; None where the model was told none.
    """
    # Models like to say a thing twice, and all of it or a sentence
    texts = dict.fromkeys((answer.visual_evidence, answer.comparison))
    told = {s.text: s for text in texts for s in verify(text, author, facts)}
    return tuple(_authored(sentence, echo) for sentence in (*told.values(), *_chosen(answer, facts, author)))


def compared(words: Mapping[str, str], facts: RegionFacts) -> dict[str, Claim]:
    """By field, how each chosen word fares; what cannot be measured is never more than unverifiable."""
    judges = {"location": _location, "brightness": _brightness, "shape": _shape, "size": _size}
    return {
        field: judges[field](word, facts)
        if field in judges
        else Claim(field.replace("_", " "), word, "not measured", ClaimStatus.UNVERIFIABLE)
        for field, word in words.items()
    }


def size_word(facts: RegionFacts) -> str:
    """The region's size in one of the words of SIZES, by its share of the part (or image)."""
    return SIZES[sum(facts.area_share >= edge for edge in (BANDS.tiny_area, BANDS.small_area, BANDS.medium_area))]


def brightness_word(facts: RegionFacts) -> str:
    """The measured brightness in one of the words that a model chooses from; undetermined with nothing to compare."""
    if facts.baseline == NO_BASELINE:
        return UNDETERMINED
    return {DARKER: "darker", BRIGHTER: "brighter"}.get(facts.brightness, SAME)


def _authored(sentence: Sentence, echo: str | None) -> Sentence:
    if echo is None or sentence.status is not ClaimStatus.SUPPORTED:
        return sentence
    return Sentence(sentence.text, echo, sentence.status, sentence.claims)


def _chosen(answer: Answer, facts: RegionFacts, author: str) -> Iterator[Sentence]:
    """One sentence for all chosen words that fare alike, so that none is struck through with another one."""
    claims = [claim for claim in compared(answer.words, facts).values() if claim.stated != UNDETERMINED]
    for status, label in _LABELS.items():
        alike = tuple(claim for claim in claims if claim.status is status)
        if alike:
            listing = ", ".join(f"{claim.kind} {claim.stated}" for claim in alike)
            yield Sentence(f"{label}: {listing}.", author, status, alike)


def _location(stated: str, facts: RegionFacts) -> Claim:
    status = _same(stated, facts.place)
    # Partly: spread so far that no cell is its place, or in another cell that it reaches into
    if not facts.cells or (stated != facts.place and stated in facts.cells):
        status = ClaimStatus.PARTLY
    return Claim("place", stated, f"{facts.place} of the {facts.frame}", status)


def _brightness(stated: str, facts: RegionFacts) -> Claim:
    if facts.baseline == NO_BASELINE:
        return Claim("brightness", stated, facts.baseline, ClaimStatus.UNVERIFIABLE)
    measured = f"{facts.brightness}, ΔL* {facts.delta_l:.1f}"
    return Claim("brightness", stated, measured, _same(stated, brightness_word(facts)))


def _shape(stated: str, facts: RegionFacts) -> Claim:
    status = _same(stated, facts.shape)
    if facts.shape == "point-like" and status is ClaimStatus.CONTRADICTED:
        status = ClaimStatus.UNVERIFIABLE  # too small to have a shape
    return Claim("shape", stated, facts.shape, status)


def _size(stated: str, facts: RegionFacts) -> Claim:
    measured = f"{size_word(facts)}, {100 * facts.area_share:.2g} % of the {facts.frame}"
    return Claim("size", stated, measured, _same(stated, size_word(facts)))


def _same(stated: str, measured: str) -> ClaimStatus:
    return ClaimStatus.SUPPORTED if stated == measured else ClaimStatus.CONTRADICTED
