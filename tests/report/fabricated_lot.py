"""A lot report that no detector made: a drawn flange, blobs as heat maps, every kind of decision."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from fabricated_model import CLUSTER_THRESHOLD, LOT, MODEL, PROVENANCE
from fabricated_pictures import HEIGHT, WIDTH, Marks, encoded, fused_map, photo, stored_map
from fabricated_statistics import CALM, CHART
from PIL import Image
from skimage.measure import label, regionprops

from explainvad.types import (
    Claim,
    ClaimStatus,
    Decision,
    Finding,
    GateResult,
    ImageRecord,
    Interval,
    LotInfo,
    LotReport,
    LotStatistics,
    Mask,
    ProbabilityBound,
    ReferenceMatch,
    Region,
    RegionFacts,
    Sentence,
    Verdict,
)
from explainvad.uncertainty.lot_statistics import clopper_pearson

MEASURED = "measured text, no language model"
HOSTILE = "=cmd|'/C calc'!A0 <img src=\"file:///etc/passwd\" onerror=alert(1)> \\u202egnp.exe \\x07"
LONG = "station-03/camera-left/" + "flange_serial_" * 14 + "0007.png"
SMALL_P = ("p = 0.0104 is at most alpha = 0.05",)


def sentence(
    text: str, author: str = MEASURED, status: ClaimStatus = ClaimStatus.SUPPORTED, *claims: Claim
) -> Sentence:
    """A sentence with its check."""
    return Sentence(text, author, status, claims)


def findings_of(fused: np.ndarray, mm: float | None, sentences: Sequence[Sentence] = ()) -> tuple[Finding, ...]:
    """Cut regions out of a fused map, heaviest first, with facts good enough to be printed."""
    labels = label(fused >= CLUSTER_THRESHOLD)
    heaviest = sorted(
        regionprops(labels), key=lambda part: -float((fused[labels == part.label] - CLUSTER_THRESHOLD).sum())
    )
    return tuple(_finding(k, labels == part.label, part, fused, mm, sentences) for k, part in enumerate(heaviest, 1))


def _finding(
    k: int, mask: np.ndarray, part: object, fused: np.ndarray, mm: float | None, sentences: Sequence[Sentence]
) -> Finding:
    y0, x0, y1, x1 = part.bbox  # type: ignore[attr-defined]
    length, width = float(part.axis_major_length), float(part.axis_minor_length)  # type: ignore[attr-defined]
    area = int(mask.sum())
    vertical = ("upper", "", "lower")[min(2, y0 * 3 // HEIGHT)]
    horizontal = ("left", "", "right")[min(2, x0 * 3 // WIDTH)]
    place = f"{vertical} {horizontal}".strip() or "centre"
    region = Region(
        region_id=f"R{k}",
        mask=Mask.from_array(mask),
        xyxy=(x0, y0, x1, y1),
        peak_xy=((x0 + x1) // 2, (y0 + y1) // 2),
        peak_value=float(fused[mask].max()),
        mass=float((fused[mask] - CLUSTER_THRESHOLD).sum()),
        area_px=area,
        area_mm2=None if mm is None else area * mm * mm,
        p_value=min(k, 4) / 96,
        refined_by="threshold",
        evidence_share={"masked autoencoder": 0.38, "memory bank": 0.62},
    )
    facts = RegionFacts(
        place=place,
        cells=(place,),
        frame="part",
        image_place="centre",
        image_cells=("centre",),
        clock=2,
        radial_zone="middle",
        touches_edge=False,
        area_px=area,
        area_mm2=region.area_mm2,
        area_share=area / 90_000,
        length_px=length,
        width_px=width,
        length_mm=None if mm is None else length * mm,
        width_mm=None if mm is None else width * mm,
        elongation=length / width,
        solidity=0.97,
        holes=0,
        shape="elongated" if length > 1.8 * width else "compact",
        orientation_deg=None,
        delta_l=-21.4,
        delta_a=2.1,
        delta_b=6.3,
        delta_e=19.8,
        noise_delta_e=2.4,
        baseline="reference image",
        brightness="darker",
        colour="browner",
    )
    size = f"{length:.0f} px" if mm is None else f"{length * mm:.1f} mm"
    texts = tuple(sentences) or (
        sentence(f"One {facts.shape} region lies in the {place} of the part, in the middle zone at 2 o’clock."),
        sentence(f"It is {size} long and covers {100 * facts.area_share:.1f} % of the part."),
        sentence("It is darker than the same place of the reference image (colour difference 19.8, noise 2.4)."),
    )
    return Finding(region, facts, texts)


def model_sentences() -> tuple[Sentence, ...]:
    """What a language model may write: one right, one wrong, one that cannot be checked, one half right."""
    author = "smolvlm-256m, weights sha256 3f9c…a1, greedy decoding"
    wrong = Claim("place", "lower right", "upper left", ClaimStatus.CONTRADICTED)
    half = Claim("brightness", "brighter", "darker, ΔL = −21.4", ClaimStatus.CONTRADICTED)
    return (
        sentence("A dark, compact mark is visible on the flange face.", author),
        sentence("The mark is in the lower right, close to the rim.", author, ClaimStatus.CONTRADICTED, wrong),
        sentence("It was probably caused by a dropped tool.", author, ClaimStatus.UNVERIFIABLE),
        sentence("It is about 9 mm long and brighter than its surroundings.", author, ClaimStatus.PARTLY, half),
        sentence("One region lies in the upper left of the part."),
    )


def stored_mask(findings: Sequence[Finding]) -> Image.Image:
    """The numbers of the regions as the run folder holds them."""
    numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, finding in enumerate(findings, 1):
        numbers[finding.region.mask.to_array()] = number
    return Image.fromarray(numbers)


def verdict_of(
    decision: Decision, score: float, p: float, reasons: tuple[str, ...] = (), sharpness: float = 6.1
) -> Verdict:
    """A verdict with four acquisition gates; ``sharpness`` below 5.42 fails the first."""
    laplacian = "log of the 80th percentile of the absolute Laplacian of the luminance"
    return Verdict(
        decision=decision,
        score=score,
        p_value=p,
        alpha=0.05,
        probability=ProbabilityBound(min(0.99, 0.0025 / p), 0.01, "from the p-value, Sellke et al. 2001"),
        aleatoric=0.21,
        epistemic=0.087,
        epistemic_within=0.0522,
        epistemic_between=0.0348,
        epistemic_limit=0.182,
        scorer_p_values={"masked autoencoder": min(1.0, 1.8 * p), "memory bank": p},
        gates=(
            GateResult("sharpness", sharpness, 5.42, 6.88, sharpness >= 5.42, laplacian),
            GateResult("exposure", 141.2, 118.0, 163.5, True, "mean luminance of the middle 80 %, 0 to 255"),
            GateResult("contrast", 62.4, 48.1, 77.9, True, "interquartile range of the luminance, grey levels"),
            GateResult("likeness", 0.31, 0.0, 0.62, True, "difference from the most similar reference image"),
        ),
        reasons=reasons,
        p_interval=clopper_pearson(round(96 * p) - 1, 95),
    )


class Builder:
    """Writes a run folder and collects the records that describe it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.records: list[ImageRecord] = []
        for name in ("evidence", "maps", "masks"):
            (run_dir / name).mkdir(parents=True)
        self.reference = encoded(photo(999), "JPEG")

    def inspected(
        self,
        file: str,
        verdict: Verdict,
        marks: Marks = (),
        strength: float = 9.0,
        mm: float | None = None,
        sentences: Sequence[Sentence] = (),
        notes: tuple[str, ...] = (),
        keep: bool = False,
    ) -> None:
        """Add an inspected image; a flagged one, or one to ``keep``, gets its evidence and map."""
        number = len(self.records) + 1
        image_id = f"img-{number:05d}"
        findings: tuple[Finding, ...] = ()
        artifacts: dict[str, bytes] = {}
        if keep or verdict.decision in (Decision.REJECT, Decision.DEFER):
            fused = fused_map(marks, strength)
            findings = findings_of(fused, mm, sentences)
            artifacts = {
                f"evidence/{image_id}.jpg": encoded(photo(number, marks), "JPEG"),
                f"evidence/{image_id}-reference.jpg": self.reference,
                f"maps/{image_id}.png": stored_map(fused),
                f"masks/{image_id}.png": encoded(stored_mask(findings), "PNG"),
            }
            for name, data in artifacts.items():
                (self.run_dir / name).write_bytes(data)
        self.records.append(
            ImageRecord(
                image_id=image_id,
                file=file,
                sha256=hashlib.sha256(file.encode()).hexdigest(),
                size_bytes=412_345 + number,
                width=WIDTH,
                height=HEIGHT,
                notes=notes,
                verdict=verdict,
                scores={"masked autoencoder": 0.0213 * verdict.score, "memory bank": 3.4 + verdict.score},
                findings=findings,
                reference=ReferenceMatch("ref-00041", "ab" * 32, 0.31) if artifacts else None,
                artifacts={name: hashlib.sha256(data).hexdigest() for name, data in artifacts.items()},
                failure=None,
            )
        )

    def good(self, n: int) -> None:
        """Add ``n`` images that are not flagged."""
        for _ in range(n):
            number = len(self.records) + 1
            score = 0.15 + 0.37 * (number * 0.618 % 1) ** 2
            self.inspected(
                f"flange_{number:03d}.png", verdict_of(Decision.NOT_FLAGGED, score, 0.12 + 0.8 * (number * 0.382 % 1))
            )

    def missed(self, file: str, failure: str) -> None:
        """Add a file that could not be inspected."""
        image_id = f"img-{len(self.records) + 1:05d}"
        self.records.append(
            ImageRecord(image_id, file, None, 17, None, None, (), None, {}, (), None, {}, failure),
        )

    def report(self) -> LotReport:
        """Close the lot."""
        ledger = "".join(f'{{"image_id":"{r.image_id}"}}\n' for r in self.records)
        (self.run_dir / "ledger.jsonl").write_text(ledger, "utf-8")
        return LotReport(LOT, tuple(self.records), statistics_of(self.records), MODEL, PROVENANCE, self.run_dir)


def statistics_of(records: Sequence[ImageRecord]) -> LotStatistics:
    """Counts that reconcile, eleven earlier lots; the bound on defective images is made up."""
    counts = {d.value: sum(r.decision is d for r in records) for d in Decision}
    n = len(records) - counts["NOT_INSPECTED"]

    def rate(k: int) -> Interval | None:
        return clopper_pearson(k, n) if n else None

    return LotStatistics(
        n_files=len(records),
        n_inspected=n,
        counts=counts,
        reject_rate=rate(counts["REJECT"]),
        defer_rate=rate(counts["DEFER"]),
        expected_false_rejects=0.05 * n,
        fdr_level=0.1,
        fdr_rejected=tuple(r.image_id for r in records if r.decision is Decision.REJECT),
        at_least_defective=min(3, counts["REJECT"]) if n else None,
        drift=CALM,
        chart=CHART,
    )


def full_lot(run_dir: Path) -> LotReport:
    """Thirty files: four rejected, two deferred, three not inspected, names of every kind."""
    b = Builder(run_dir)
    b.good(4)
    b.inspected("flange_005.png", verdict_of(Decision.REJECT, 4.81, 1 / 96, SMALL_P), [(250, 130, 26, 9)], mm=0.125)
    b.good(3)
    five = [(220, 150, 12, 12), (400, 330, 30, 6), (330, 110, 9, 16), (450, 200, 7, 7), (240, 340, 8, 6)]
    b.inspected(HOSTILE, verdict_of(Decision.REJECT, 6.4, 1 / 96, SMALL_P), five)
    b.missed("truncated.jpg", "the JPEG ends after 1,204 of 88,310 bytes; export the file again")
    b.good(4)
    b.inspected(LONG, verdict_of(Decision.REJECT, 2.2, 2 / 96, SMALL_P), notes=("16-bit, shown as value / 257",))
    b.good(3)
    blurred = ("sharpness 4.9 is outside [5.42, 6.88], the range of the reference images",)
    b.inspected("blurred/flange_019.png", verdict_of(Decision.DEFER, 0.9, 0.31, blurred, sharpness=4.9))
    b.good(2)
    rejected = verdict_of(Decision.REJECT, 22.0, 1 / 96, SMALL_P)
    b.inspected("flange_022.png", rejected, [(230, 160, 16, 14)], mm=0.125, sentences=model_sentences())
    b.missed("+notes.txt.png", "the file is text, not an image; remove it from the lot")
    b.good(3)
    disagree = ("the scorers disagree: epistemic part 0.214 bit is above 0.182 bit",)
    deferred = verdict_of(Decision.DEFER, 1.2, 0.083, disagree)
    b.inspected("flange_027.png", deferred, [(390, 170, 9, 9), (260, 330, 14, 8)], strength=3.6)
    b.missed("empty.png", "the file is empty")
    b.good(2)
    return b.report()


def quiet_lot(run_dir: Path) -> LotReport:
    """Three unremarkable images, and only a lot id on the cover."""
    b = Builder(run_dir)
    b.good(3)
    return replace(b.report(), lot=LotInfo("quiet"))


def many_flagged(run_dir: Path, n: int) -> LotReport:
    """``n`` rejected images with two regions each."""
    b = Builder(run_dir)
    for k in range(n):
        b.inspected(
            f"{k}.png",
            verdict_of(Decision.REJECT, 3.0 + k / 10, 1 / 96, SMALL_P),
            [(250, 130, 20, 9), (400, 300, 12, 12)],
        )
    return b.report()
