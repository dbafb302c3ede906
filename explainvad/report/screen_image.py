"""What the screen shows of one flagged image: its pictures in layers, and what stands beside them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from explainvad.report.assets import read_artifact
from explainvad.report.explanations import map_title, map_words, nearest_words, phrase_words
from explainvad.report.figures import heat_scales
from explainvad.report.layers import (
    UNITS,
    Layer,
    Outline,
    doubt_layer,
    explaining_layer,
    heat_layer,
    outline,
    shown_photograph,
    shown_reference,
)
from explainvad.report.wording import WORDS, findings, number
from explainvad.types import ImageRecord, LotReport

_DOUBT: Mapping[str, str] = {
    "aleatoric": "Aleatoric doubt",
    "within": "Doubt within scorers",
    "between": "Doubt between scorers",
}
_NAMED = 3  # regions in an alternative text


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture as data URI with its size in px and its alternative text."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True, slots=True)
class ShownMap:
    """A map to lay over the photograph, with its name and what its colours mean; ``contour`` may be empty."""

    name: str
    picture: ShownPicture
    contour: str
    scale: str
    explains: bool = False  # a scorer's number, rather than showing what was decided with
    ramp: str = "heat"  # gradient of its legend


@dataclass(frozen=True, slots=True)
class ScreenImage:
    """Everything that the section of one flagged image shows beside its record.

    ``frame`` is (width, height) of outlines and contours in their units. The first of ``maps`` is the fused one.
    """

    record: ImageRecord
    position: int
    total: int
    photo: ShownPicture
    frame: tuple[int, int]
    maps: tuple[ShownMap, ...]
    outlines: tuple[Outline, ...]
    reference: ShownPicture | None
    explanations: tuple[str, ...]  # nearest normal patches, phrases, and what is lacking
    above_threshold: bool

    @property
    def tall(self) -> bool:
        """Whether the picture is so much higher than wide that it must not fill a column."""
        return self.photo.height > 1.25 * self.photo.width


def screen_image(report: LotReport, record: ImageRecord, position: int, total: int) -> ScreenImage:
    """Build the view of flagged image ``position`` of ``total`` from its checked artefacts.

    Raises :class:`explainvad.errors.IntegrityError` when one differs from its record.
    """
    name = record.image_id
    photo = shown_photograph(read_artifact(report.run_dir, record, f"evidence/{name}.jpg"))
    found = findings(record, _NAMED)
    maps = tuple(_maps(report, record, found))
    reference = None
    if record.reference is not None:
        alt = f"Nearest nominal reference of {name}, {record.reference.reference_id}"
        alignment = record.reference.alignment
        frame = (record.width or photo.width, record.height or photo.height)
        nominal = read_artifact(report.run_dir, record, f"evidence/{name}-reference.jpg")
        layer = shown_reference(nominal, alignment, frame, photo)
        reference = _shown(layer, f"{alt}." if alignment is None else f"{alt}, laid over it.")
    longest = max(photo.width, photo.height)
    return ScreenImage(
        record=record,
        position=position,
        total=total,
        photo=_shown(photo, f"Inspected image {name}: {found}."),
        frame=(round(UNITS * photo.width / longest), round(UNITS * photo.height / longest)),
        maps=maps,
        outlines=tuple(outline(finding.region) for finding in record.findings),
        reference=reference,
        explanations=tuple(_explanations(record)),
        above_threshold=bool(maps[0].contour),
    )


def data_uri(layer: Layer) -> str:
    """A picture as URI that holds it."""
    return f"data:{layer.media};base64,{base64.b64encode(layer.data).decode()}"


def _shown(layer: Layer, alt: str) -> ShownPicture:
    return ShownPicture(data_uri(layer), layer.width, layer.height, alt)


def _maps(report: LotReport, record: ImageRecord, found: str) -> Iterator[ShownMap]:
    """The fused map, then whatever other maps the record holds of this image."""
    name = record.image_id
    assert record.verdict is not None, "only a judged image is flagged"
    _, scale = heat_scales(report.model.calibration)[record.verdict.cell]
    layer, contour = heat_layer(read_artifact(report.run_dir, record, f"maps/{name}.png"), scale)
    alt = f"Heat map of {name}: {found}; {WORDS[record.decision].lower()}."
    shown_from = f"shown from {number(scale.cluster)}, pixel threshold {number(scale.pixel)}"
    yield ShownMap("Anomaly", _shown(layer, alt), contour, f"Colour scale from 0 to {number(scale.top)}, {shown_from}.")
    for path in sorted(record.artifacts):
        if match := re.fullmatch(rf"maps/{re.escape(name)}-([\w-]+)\.png", path):
            title = _DOUBT.get(match[1], match[1].replace("-", " "))
            layer = doubt_layer(read_artifact(report.run_dir, record, path))
            top = "1 bit" if match[1] in _DOUBT else "the most that it can be"
            yield ShownMap(title, _shown(layer, f"{title} over {name}."), "", f"Colour scale from 0 to {top}.")
    for kept in record.explanation.maps if record.explanation else ():
        layer, (x, y) = explaining_layer(read_artifact(report.run_dir, record, kept.path), kept.signed)
        title = map_title(kept)
        where = f"strongest at {x:.0%} from the left and {y:.0%} from the top"
        if kept.low == kept.high:
            where = "the same everywhere"
        alt = f"{title}, over {name}: {where}; {kept.method}."
        ramp = "signed" if kept.signed else "heat"
        yield ShownMap(title, _shown(layer, alt), "", map_words(kept), explains=True, ramp=ramp)


def _explanations(record: ImageRecord) -> Iterator[str]:
    """What is kept of the explanations beside maps, in words."""
    kept = record.explanation
    if kept is None:
        return
    if kept.failure:
        yield f"It failed: {kept.failure}. The verdict does not rest on it."
        return
    if kept.at is not None:
        yield f"Explained place: the peak of the heaviest region, x {kept.at[0]}, y {kept.at[1]} px."
    if kept.baseline:
        yield f"Pixels are compared with {kept.baseline}."
    yield from (f"Normal patch: {nearest_words(near)}." for near in kept.nearest)
    yield from (f"Phrase: {phrase_words(phrase)}." for phrase in kept.phrases)
    yield from (f"Not given: {lacking.name} of {lacking.scorer}: {lacking.reason}." for lacking in kept.not_given)
