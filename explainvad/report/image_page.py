"""One page per image: which pictures it shows, and the words that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

from PIL import Image

from explainvad.errors import UsageError
from explainvad.report import figures
from explainvad.report.assets import read_artifact
from explainvad.report.explanations import printed
from explainvad.report.wording import AUTHOR_CHARACTERS, WORDS, elide, findings
from explainvad.types import (
    CalibrationFacts,
    Claim,
    ClaimStatus,
    Finding,
    ImageRecord,
    LotReport,
    Pages,
    Sentence,
    Verdict,
)

# A page has room for three regions and this much text; what is beyond is counted and in report.json.
REGIONS_SHOWN = 3
_LINES = (0, 16, 14, 12)  # of sentences, by the number of regions shown
_CHARACTERS_A_LINE = 106
_AUTHOR_CHARACTERS_A_LINE = 125
_REASON_CHARACTERS, _REASON_CHARACTERS_A_LINE = 420, 105
_PAGE_MM = 267.0  # A4 within its margins
_RESERVE_MM = 4.0
_PICTURE_MM = range(88, 28, -2)  # heights that the style sheet knows


@dataclass(frozen=True, slots=True)
class Picture:
    """An asset's name and the alternative text that carries its finding."""

    name: str
    alt: str


@dataclass(frozen=True, slots=True)
class RegionView:
    """A region with the crop of it and of the same place of the reference."""

    finding: Finding
    inspected: Picture
    reference: Picture | None


@dataclass(frozen=True, slots=True)
class SentenceView:
    """A sentence, the letter of its author, and the claims that measurement does not support.

    ``rows`` is the number of sentences about the same region that start here; 0 within them.
    """

    region_id: str
    sentence: Sentence
    author: str
    disputed: tuple[Claim, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class ImagePage:
    """Everything that the page of one image shows."""

    record: ImageRecord
    number: int
    total: int
    original: Picture
    overlay: Picture
    heat: figures.HeatScale
    colour_bar: str  # asset
    reference: Picture | None  # as a whole, only where there is no region to compare
    height_class: str
    above_threshold: bool
    regions: tuple[RegionView, ...]
    sentences: tuple[SentenceView, ...]
    authors: Mapping[str, str]
    reasons: tuple[str, ...]
    explanation: str  # empty where there is none, or no room for it
    reasons_left_out: int
    regions_left_out: int
    sentences_left_out: int


def shown_records(report: LotReport, pages: Pages) -> tuple[ImageRecord, ...]:
    """The images that get a page: the flagged ones, or all that were judged.

    Raises :class:`UsageError` where the run kept no pictures of the others.
    """
    if pages not in get_args(Pages):
        raise UsageError(f"pages must be {' or '.join(get_args(Pages))}, got {pages!r}")
    if pages == "flagged":
        return tuple(record for record in report.records if record.flagged)
    judged = tuple(record for record in report.records if record.verdict is not None)
    bare = [record.image_id for record in judged if f"evidence/{record.image_id}.jpg" not in record.artifacts]
    if bare:
        raise UsageError(
            f"pages of all images need pictures of all, but this run kept none of {len(bare)} that were not flagged "
            f"({bare[0]} first): inspect the lot again with analyze --pages all and another --out"
        )
    return judged


def image_page(
    run_dir: Path, record: ImageRecord, number: int, total: int, calibration: CalibrationFacts
) -> tuple[ImagePage, dict[str, bytes]]:
    """Build the page of a judged image, the ``number``-th of ``total``, and the pictures (name -> JPEG) it shows.

    Raises :class:`explainvad.errors.IntegrityError` when an artefact differs from its record.
    """
    pictures: dict[str, bytes] = {}
    name = record.image_id
    photo = figures.photograph(read_artifact(run_dir, record, f"evidence/{name}.jpg"))
    heat_map = read_artifact(run_dir, record, f"maps/{name}.png")
    colour_bar, heat = figures.heat_scales(calibration)[_verdict(record).cell]
    reference = None
    alignment = record.reference.alignment if record.reference is not None else None
    if record.reference is not None:
        reference = _reference(read_artifact(run_dir, record, f"evidence/{name}-reference.jpg"))
    finding_words = findings(record, REGIONS_SHOWN)

    # Draw the two large pictures.
    shown = figures.fitted(photo)
    pictures[f"{name}-outlined.jpg"] = figures.outlined(shown, [f.region for f in record.findings])
    overlay, above = figures.heat_overlay(shown, heat_map, heat)
    pictures[f"{name}-heat.jpg"] = overlay

    # Cut the heaviest regions out, each beside the same place of the reference.
    regions: list[RegionView] = []
    for finding in record.findings[:REGIONS_SHOWN]:
        region = finding.region
        frame = (region.mask.width, region.mask.height)
        crop, nominal = figures.crop_pair(photo, reference, region.xyxy, frame, alignment)
        inspected = Picture(
            f"{name}-{len(regions) + 1}.jpg",
            f"Region {region.region_id} of {name} as inspected, {finding.facts.place}.",
        )
        pictures[inspected.name] = crop
        beside = None
        if nominal is not None and record.reference is not None:
            beside = Picture(
                f"{name}-{len(regions) + 1}-reference.jpg",
                f"The same place of nominal reference {record.reference.reference_id}.",
            )
            pictures[beside.name] = nominal
        regions.append(RegionView(finding, inspected, beside))

    whole_reference = None
    if reference is not None and record.reference is not None and not regions:
        whole_reference = Picture(
            f"{name}-reference.jpg", f"Nearest nominal reference {record.reference.reference_id}, no region to compare."
        )
        pictures[whole_reference.name] = figures.jpeg(figures.fitted(reference, figures.PICTURE_PX // 2))

    sentences, authors, left_out = _sentences(record)
    reasons = _reasons(record)
    room = _room(record, reasons, len(regions), sentences, tuple(authors.values()))
    explanation = printed(record)
    taken = _explanation_mm(explanation)
    if room - taken < _PICTURE_MM[-1]:
        explanation, taken = "", 0.0  # the pictures come first; it is in report.json
    page = ImagePage(
        record=record,
        number=number,
        total=total,
        original=Picture(f"{name}-outlined.jpg", f"Inspected image {name}: {finding_words}."),
        overlay=Picture(f"{name}-heat.jpg", f"Heat map of {name}: {finding_words}; {WORDS[record.decision].lower()}."),
        heat=heat,
        colour_bar=colour_bar,
        reference=whole_reference,
        height_class=_height_class(room - taken),
        above_threshold=above,
        regions=tuple(regions),
        sentences=tuple(sentences),
        authors=authors,
        reasons=reasons,
        explanation=explanation,
        reasons_left_out=len(_verdict(record).reasons) - len(reasons),
        regions_left_out=max(0, len(record.findings) - REGIONS_SHOWN),
        sentences_left_out=left_out,
    )
    return page, pictures


@lru_cache(maxsize=8)
def _reference(data: bytes) -> Image.Image:
    """Decode a reference, which many images share."""
    return figures.photograph(data)


def _verdict(record: ImageRecord) -> Verdict:
    assert record.verdict is not None, "only a judged image has a page"
    return record.verdict


def _reasons(record: ImageRecord) -> tuple[str, ...]:
    """Choose the reasons that fit, in their order; the first always does."""
    shown: list[str] = []
    room = _REASON_CHARACTERS
    for reason in _verdict(record).reasons:
        room -= len(reason) + 2
        if shown and room < 0:
            break
        shown.append(elide(reason, _REASON_CHARACTERS))
    return tuple(shown)


def _sentences(record: ImageRecord) -> tuple[list[SentenceView], dict[str, str], int]:
    """Choose the sentences that fit, measured ones and the heaviest region first, and give each author a letter."""
    authors: dict[str, str] = {}
    views: list[SentenceView] = []
    shown = record.findings[:REGIONS_SHOWN]
    # What a region's first author says, the measurement, comes before what anyone else says of another region
    places = [(r, k) for r, finding in enumerate(shown) for k in range(len(finding.sentences))]
    places.sort(key=lambda at: shown[at[0]].sentences[at[1]].author != shown[at[0]].sentences[0].author)
    room = _LINES[min(REGIONS_SHOWN, len(record.findings))]
    chosen: set[tuple[int, int]] = set()
    for r, k in places:
        sentence = shown[r].sentences[k]
        room -= _lines(sentence, _disputed(sentence))
        if room >= 0:
            chosen.add((r, k))
    for r, finding in enumerate(shown):
        fitting = [(s, _disputed(s)) for k, s in enumerate(finding.sentences) if (r, k) in chosen]
        for k, (sentence, disputed) in enumerate(fitting):
            letter = authors.setdefault(sentence.author, chr(ord("a") + min(len(authors), 25)))
            rows = len(fitting) if k == 0 else 0
            views.append(SentenceView(finding.region.region_id, sentence, letter, disputed, rows))
    left_out = sum(len(finding.sentences) for finding in record.findings) - len(views)
    return views, {letter: author for author, letter in authors.items()}, left_out


def _disputed(sentence: Sentence) -> tuple[Claim, ...]:
    return tuple(c for c in sentence.claims if c.status in (ClaimStatus.CONTRADICTED, ClaimStatus.PARTLY))


def _lines(sentence: Sentence, disputed: Sequence[Claim]) -> int:
    length = len(sentence.text) + sum(len(c.kind + c.stated + c.measured) + 24 for c in disputed)
    return 1 + length // _CHARACTERS_A_LINE


def _author_characters(authors: Sequence[str]) -> int:
    """Of the note below the sentences; an author has its letter in brackets before it."""
    return sum(6 + min(len(author), AUTHOR_CHARACTERS) for author in authors)


def _explanation_mm(words: str) -> float:
    return 4.1 + 3.3 * (len(words) // _AUTHOR_CHARACTERS_A_LINE) if words else 0.0


def _height_class(room: float) -> str:
    """The greatest height of the two large pictures that the style sheet knows and that fits: h66 is 66 mm."""
    return f"h{next((h for h in _PICTURE_MM if h <= room), _PICTURE_MM[-1])}"


def _room(
    record: ImageRecord,
    reasons: Sequence[str],
    n_regions: int,
    sentences: Sequence[SentenceView],
    authors: Sequence[str],
) -> float:
    """How high the two large pictures can be, mm, so that the page is full and never two."""
    head, row, more = 6.3, 4.4, 3.3  # mm: a table's head, its rows of one line, each further line
    used = 32.6 + 5.6 * (len(record.file) > 58)  # names, hash and key figures
    used += more * bool(record.notes) * (1 + min(180, len("; ".join(record.notes))) // 120)
    used += 1.6 + 3.8 * (1 + (len("; ".join(reasons)) + 25) // _REASON_CHARACTERS_A_LINE)
    used += 16.5  # captions and colour bar
    used += (58.0, 49.2, 42.0, 33.2)[n_regions]  # the reference as a whole, or the crops with their caption
    if n_regions > 1:
        shares = max(len(f.region.evidence_share) for f in record.findings[:n_regions])
        lines = max(shares, 1 + (record.findings[0].region.area_mm2 is not None))
        used += head + n_regions * (row + more * (lines - 1))
    if n_regions:
        used += 4.1 * (len(record.findings) > REGIONS_SHOWN)
    if sentences:
        used += head + 5.9 + sum(3.8 + more * (_lines(s.sentence, s.disputed) - 1) for s in sentences)
        used += more * (_author_characters(authors) // _AUTHOR_CHARACTERS_A_LINE)
    verdict = _verdict(record)
    used += head + row * max(len(record.scores) + 1 + (verdict.p_interval is not None), len(verdict.gates))
    used += 30.6  # the human verdict
    return _PAGE_MM - _RESERVE_MM - used
