"""Are the words right, and do they come from looking? Asked of every region of every flagged image of a data set.

Location: the share of the defect, and of the anomaly map, inside the area that the chosen place word names, over that
area's share (chance is 1); the same words against the maps of other images. Looking: a normal patch marked instead (is
a defect invented, does the text follow the mark), and the defect erased by the nearest reference (is it still named).
Truth: claims against measurements, by kind, and where the detector is unsure. Baselines stand beside every model.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.evaluation.text_arms import N_SAMPLES, Arm, Marked, Said
from explainvad.evaluation.text_metrics import (
    CHECKABLE,
    CONFIDENCE,
    N_RESAMPLES,
    claim_counts,
    coverage,
    names_defect,
    place_ratios,
    ratio_interval,
    reports_difference,
    votes,
)
from explainvad.evaluation.text_probabilities import ProbabilityFigures
from explainvad.evaluation.text_trials import erased, frame_box, moved_region, touched
from explainvad.explanation.alignment import AlignedReference, align
from explainvad.explanation.describers.answer import VOCABULARIES
from explainvad.explanation.describers.asking import REASON_LENGTH, NoAnswerError, one_line
from explainvad.explanation.findings import measured_finding
from explainvad.explanation.part import part_mask
from explainvad.types import ClaimStatus, Finding, InspectionImage

BINS = 3  # of images, by the detector's uncertainty
MEASURES = {  # in the order of the table
    "agreement_truth": "share of the defect in the area that the place word names, over the area's share; chance 1",
    "agreement_map": "the same of the anomaly map within the region; chance 1",
    "agreement_shuffled": "the same words against regions of other images: what the habit of a place is worth",
    "follows_mark": "mark moved to a normal patch elsewhere: the place word is right for the new place, not the old",
    "named_defect": "region that meets a defect: a defect is named",
    "erased_defect": "the same region with the defect erased: a defect is still named",
    "invented_defect": "normal patch marked: a defect is named",
    "reported_difference": "region that meets a defect: another brightness or colour is reported",
    "erased_difference": "the same region with the defect erased: another brightness or colour is still reported",
    "invented_difference": "normal patch marked: another brightness or colour is reported",
    "precision": "share of the checkable claims that measurements support",
    "contradicted": "share of the checkable claims that measurements contradict",
    "coverage": "share of the measured facts that a supported claim speaks of",
}
UNDEFINED_LOCATION = "a text without a place counts as naming the whole frame: agreement 1"

_Values = list[tuple[int, float, float]]  # image, numerator, denominator


@dataclass(frozen=True, slots=True, eq=False)
class _Moved:
    marked: Marked
    new_cells: frozenset[str]  # right for the new place, and not for the old one


class TextEvaluation:
    """Collects one image after the other; holds numbers and words, never pictures. ``seed`` is of every draw."""

    def __init__(self, arms: Sequence[Arm], seed: int) -> None:
        self._arms, self._seed = tuple(arms), seed
        self._uncertainties: list[float] = []  # of each image, in bits
        self._n = Counter[str]()
        self._maps: list[tuple[int, dict[str, float]]] = []  # of each region: image, ratio of every place word
        self._places: dict[str, list[tuple[int, list[str]]]] = defaultdict(
            list
        )  # arm -> image, place words of a region
        self._values: dict[str, dict[str, _Values]] = {arm.name: defaultdict(list) for arm in self._arms}
        self._claims: dict[str, dict[str, list[tuple[int, Counter[ClaimStatus]]]]] = {
            arm.name: defaultdict(list) for arm in self._arms
        }
        self._votes: dict[str, dict[str, _Values]] = {arm.name: defaultdict(list) for arm in self._arms}
        self._probabilities = {arm.name: ProbabilityFigures() for arm in self._arms}
        self._unanswered: dict[str, Counter[str]] = {arm.name: Counter() for arm in self._arms}

    def add(
        self,
        image: InspectionImage,
        findings: Sequence[Finding],
        epistemic: float,
        fused_map: NDArray[np.float32],
        truth: NDArray[np.bool_] | None,
        reference: bytes,
    ) -> None:
        """Ask every arm about every region of an image; one without findings is passed over.

        ``epistemic`` is the detector's uncertainty in bits. ``fused_map`` and ``truth`` have shape (H, W); ``truth`` is
        None where the defect's place is not known, which leaves out all that needs it. ``reference`` is the picture of
        the nearest reference (JPEG).
        """
        if not findings:
            return
        number = len(self._uncertainties)
        self._uncertainties.append(epistemic)
        part = part_mask(image) if any(found.facts.frame == "part" for found in findings) else None
        regions = np.any([found.region.mask.to_array() for found in findings], axis=0)
        ids = tuple(found.region.region_id for found in findings)
        anomalous = regions if truth is None else truth | regions
        aligned = align(image, reference, anomalous, part)
        alignment = None if aligned is None else aligned.alignment
        shown = partial(Marked, ids=ids, reference=reference, alignment=alignment)
        for found in findings:
            mask = found.region.mask.to_array()
            frame = frame_box(mask, part if found.facts.frame == "part" else None)  # as its place was measured
            by_map = place_ratios(np.where(mask, np.maximum(fused_map, 0), 0), frame)
            if by_map is not None:
                self._maps.append((number, by_map))

            # Show a normal patch instead, and the region without its defect
            by_truth = moved = healed = None
            if truth is not None:
                defect = touched(truth, mask)
                moved = self._moved(image, found, anomalous, part, aligned, shown)
                if defect.any():
                    by_truth = place_ratios(defect.astype(np.float64), frame)
                    without = erased(image, defect | mask, reference, aligned)
                    finding = measured_finding(without, found.region, part, regions, aligned)
                    healed = shown(without, finding)
            self._n.update(regions=1, moved=moved is not None, defects=healed is not None)

            marked = shown(image, found)
            for arm in self._arms:
                answers = [self._ask(arm, marked, sample) for sample in range(arm.samples)]
                drawn = [said for said in answers if said is not None]
                if drawn:
                    self._said(arm.name, number, found, drawn, by_map, by_truth)
                if answers[0] is not None:
                    self._presence(arm, number, answers[0], moved, healed)

    def results(self) -> dict[str, Any]:
        """All measures as plain values: by arm, each with a bootstrap interval over images."""
        for name, places in self._places.items():
            self._values[name]["agreement_shuffled"] = [
                (number, float(np.mean(others)), 1)
                for number, words in places
                if (others := [ratios[word] for word in words for image, ratios in self._maps if image != number])
            ]
        return {
            "n_images": len(self._uncertainties),
            **{f"n_{kind}": self._n[kind] for kind in ("regions", "moved", "defects")},
            "confidence": CONFIDENCE,
            "n_resamples": N_RESAMPLES,
            "seed": self._seed,
            "measures": dict(MEASURES),
            "notes": [UNDEFINED_LOCATION],
            "arms": {arm.name: self._of(arm) for arm in self._arms},
        }

    def _moved(
        self,
        image: InspectionImage,
        found: Finding,
        anomalous: NDArray[np.bool_],
        part: NDArray[np.bool_] | None,
        aligned: AlignedReference | None,
        shown: Callable[[InspectionImage, Finding], Marked],
    ) -> _Moved | None:
        """The mark on a normal patch of the region's shape; None where it fits nowhere."""
        cells = (found.facts.place, *found.facts.cells)
        about = zlib.crc32(f"{image.sha256}:{found.region.region_id}".encode())
        region = moved_region(found.region, cells, anomalous, part, (self._seed, about))
        if region is None:
            return None
        there = measured_finding(image, region, part, anomalous, aligned)
        new_cells = frozenset({there.facts.place, *there.facts.cells} - set(cells))
        return _Moved(shown(image, there), new_cells)

    def _ask(self, arm: Arm, marked: Marked, sample: int = 0) -> Said | None:
        try:
            return arm.say(marked, sample)
        except NoAnswerError as error:
            self._unanswered[arm.name][one_line(str(error), REASON_LENGTH)] += 1
            return None

    def _said(
        self,
        name: str,
        number: int,
        found: Finding,
        drawn: Sequence[Said],
        by_map: dict[str, float] | None,
        by_truth: dict[str, float] | None,
    ) -> None:
        """What is said of the region itself: the mean of all answers, and how far the first ones agree."""
        words = [said.words["location"] for said in drawn]
        self._places[name].append((number, words))
        for measure, ratios in (("agreement_map", by_map), ("agreement_truth", by_truth)):
            if ratios is not None:
                self._values[name][measure].append((number, float(np.mean([ratios[word] for word in words])), 1))
        told = float(np.mean([coverage(said.sentences, found.facts) for said in drawn]))
        self._values[name]["coverage"].append((number, told, 1))
        for kind, counts in claim_counts([s for said in drawn for s in said.sentences]).items():
            self._claims[name][kind].append((number, counts))
        for said in drawn:
            self._probabilities[name].add(number, said.word_probabilities, found.facts)
        if len(drawn) >= N_SAMPLES:
            for field in VOCABULARIES:
                share, entropy = votes([said.words[field] for said in drawn[:N_SAMPLES]])
                self._votes[name][field].append((number, share, entropy))

    def _presence(self, arm: Arm, number: int, said: Said, moved: _Moved | None, healed: Marked | None) -> None:
        """What is said of the erased defect and of the moved mark."""
        without = None if healed is None else self._ask(arm, healed)
        if without is not None:  # in pairs: both are asked of the same regions
            self._reported(arm.name, number, ("named_defect", "reported_difference"), said)
            self._reported(arm.name, number, ("erased_defect", "erased_difference"), without)
        there = None if moved is None else self._ask(arm, moved.marked)
        if moved is not None and there is not None:
            self._reported(arm.name, number, ("invented_defect", "invented_difference"), there)
            if moved.new_cells:
                followed = float(there.words["location"] in moved.new_cells)
                self._values[arm.name]["follows_mark"].append((number, followed, 1))

    def _reported(self, name: str, number: int, measures: tuple[str, str], said: Said) -> None:
        for measure, test in zip(measures, (names_defect, reports_difference), strict=True):
            self._values[name][measure].append((number, float(test(said.words, said.sentences)), 1))

    def _of(self, arm: Arm) -> dict[str, Any]:
        """The results of one arm."""
        values, claims = self._values[arm.name], self._claims[arm.name]
        overall = [row for rows in claims.values() for row in rows]

        def share(rows: Sequence[tuple[int, Counter[ClaimStatus]]], status: ClaimStatus) -> dict[str, Any] | None:
            """Of the checkable claims, those of one status."""
            checkable = [(image, counts[status], sum(counts[s] for s in CHECKABLE)) for image, counts in rows]
            return ratio_interval(checkable, self._seed)

        measures = {name: ratio_interval(values.get(name, []), self._seed) for name in MEASURES}
        measures["precision"] = share(overall, ClaimStatus.SUPPORTED)
        measures["contradicted"] = share(overall, ClaimStatus.CONTRADICTED)
        return {
            "author": arm.author,
            "measures": measures,
            "claims": {
                kind: {
                    "claims": {str(status): sum(counts[status] for _, counts in rows) for status in ClaimStatus},
                    "precision": share(rows, ClaimStatus.SUPPORTED),
                    "contradicted": share(rows, ClaimStatus.CONTRADICTED),
                }
                for kind, rows in sorted(claims.items())
            },
            "by_uncertainty": [
                {
                    "epistemic_bits": [low, high],
                    "n_images": len(images),
                    "contradicted": share([row for row in overall if row[0] in images], ClaimStatus.CONTRADICTED),
                }
                for low, high, images in self._bins()
            ],
            "samples": {
                field: {
                    "n": N_SAMPLES,
                    "vote_share": ratio_interval([(i, vote, 1) for i, vote, _ in rows], self._seed),
                    "entropy_bits": ratio_interval([(i, bits, 1) for i, _, bits in rows], self._seed),
                    "largest_entropy_bits": float(np.log2(min(N_SAMPLES, len(VOCABULARIES[field]) + 1))),
                }
                for field, rows in self._votes[arm.name].items()
            },
            "probabilities": self._probabilities[arm.name].results(self._seed),
            "unanswered": dict(self._unanswered[arm.name]),
        }

    def _bins(self) -> list[tuple[float, float, frozenset[int]]]:
        """Images in BINS groups of like size, by the detector's epistemic uncertainty; none with fewer images."""
        values = np.array(self._uncertainties)
        if len(values) < BINS:
            return []
        groups = np.array_split(np.argsort(values, kind="stable"), BINS)
        return [(float(values[g].min()), float(values[g].max()), frozenset(g.tolist())) for g in groups]
