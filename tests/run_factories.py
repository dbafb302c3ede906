"""Small made-up runs: every value that a ledger line can hold, without any image behind it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import rfc8785
from pikepdf import Dictionary, Name

from explainvad.record.events import RunStart
from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.record.verify import verify_run
from explainvad.types import (
    CalibrationFacts,
    Claim,
    ClaimStatus,
    Decision,
    Finding,
    GateResult,
    ImageRecord,
    Interval,
    LotInfo,
    LotStatistics,
    Mask,
    ModelCard,
    ProbabilityBound,
    ReferenceMatch,
    Region,
    RegionFacts,
    ScorerCard,
    Sentence,
    Verdict,
)

DECISIONS = (Decision.NOT_FLAGGED, Decision.REJECT, Decision.DEFER, Decision.NOT_INSPECTED)


def make_model(model_id: str = "ab" * 32) -> ModelCard:
    calibration = CalibrationFacts(
        n_fit=60, n_norm=20, n_cal=39, n_groups=119, grouping="every image its own group", alpha=0.05,
        smallest_p=0.025, conditional_alpha=0.09, scores=(0.1, 0.25, 1.0), score_threshold=1.0,
        pixel_threshold=3.5, cluster_threshold=2.0, gamma=0.01,
    )  # fmt: skip
    scorer = ScorerCard("memory", "memory bank", "nearest nominal patch", "a paper", "trained here", {"rows": "4,000"})
    return ModelCard(
        model_id, "embedded", "finding scratches", (scorer,), calibration, "400 x 300 px", 7, "2025-05-01T00:00:00Z",
        12.5, {"numpy": "2.0"}, ("knows one part only",), ("CLIP scorer: not used, no weights",),
    )  # fmt: skip


def make_start(n_files: int = 4, **changes: Any) -> RunStart:
    files = tuple((f"img-{i:05d}", f"tray/part {i} ü.png") for i in range(1, n_files + 1))
    config = {"alpha": 0.05, "regions": {"min_area": 20, "scales": [1.0, 0.5]}, "seed": 7}
    lot = LotInfo("lot42", part="capsule")
    start = RunStart(lot, files, make_model(), config, "explainvad 0.1.0", {"numpy": "2.0"}, "Linux")
    return replace(start, **changes)


def make_record(start: RunStart, index: int) -> ImageRecord:
    """The record of file ``index``; the four inspected and not inspected kinds take turns."""
    image_id, file = start.files[index]
    decision = DECISIONS[index % 4]
    if decision is Decision.NOT_INSPECTED:
        return ImageRecord(
            image_id, file, None, 0, None, None, (), None, {}, (), None, {}, "empty file"
        )  # fmt: skip
    rng = np.random.default_rng(index)
    gate = GateResult("sharpness", rng.random(), 0.0, 1.0, True, "log variance of the Laplacian")
    verdict = Verdict(
        decision, rng.random() * 5, 0.025 + rng.random() / 2, 0.05, ProbabilityBound(0.5, 0.1, "odds bound"),
        rng.random(), rng.random(), 0.8, {"memory": 0.1, "autoencoder": rng.random()}, (gate,), ("far from all",),
    )  # fmt: skip
    findings = (make_finding(),) if decision is Decision.REJECT else ()
    return ImageRecord(
        image_id, file, f"{index:064x}", 1234, 8, 6, ("first of 3 frames",), verdict,
        {"memory": rng.random(), "autoencoder": 1e-7}, findings, ReferenceMatch("ref-1", "cd" * 32, 0.25), {}, None,
    )  # fmt: skip


def make_finding() -> Finding:
    pixels = np.zeros((6, 8), dtype=bool)
    pixels[2:4, 3:7] = True
    region = Region(
        "R1", Mask.from_array(pixels), (3, 2, 7, 4), (4, 3), 7.5, 20.0, 8, None, 0.025, "threshold",
        {"memory": 0.75, "autoencoder": 0.25},
    )  # fmt: skip
    facts = RegionFacts(
        place="centre", cells=("centre",), frame="part", image_place="centre",
        image_cells=("centre",), clock=None, radial_zone="centre", touches_edge=False,
        area_px=8, area_mm2=None, area_share=1 / 6, length_px=4.0, width_px=2.0, length_mm=None, width_mm=None,
        elongation=2.0, solidity=1.0, holes=0, shape="elongated", orientation_deg=0.0, delta_l=-12.5, delta_a=0.1,
        delta_b=-0.2, delta_e=11.0, noise_delta_e=1.5, baseline="surrounding ring", brightness="darker", colour=None,
    )  # fmt: skip
    claim = Claim("brightness", "darker", "darker", ClaimStatus.SUPPORTED)
    return Finding(region, facts, (Sentence("It is darker.", "measured text", ClaimStatus.SUPPORTED, (claim,)),))


def make_artifacts(start: RunStart, index: int) -> dict[str, bytes]:
    image_id = start.files[index][0]
    if DECISIONS[index % 4] is Decision.NOT_INSPECTED:
        return {}
    return {f"{folder}/{image_id}.png": f"{folder} of {index}".encode() * 9 for folder in ("maps", "masks")}


def make_statistics(records: Iterable[ImageRecord]) -> LotStatistics:
    found = Counter(record.decision for record in records)
    n_inspected = found.total() - found[Decision.NOT_INSPECTED]
    counts = {decision.value: found[decision] for decision in Decision}
    return LotStatistics(
        found.total(), n_inspected, counts, Interval(0.25, 0.01, 0.7, 0.95), None, 0.05 * n_inspected, 0.1, ()
    )


def continue_run(run: Run, start: RunStart, until: int | None = None) -> None:
    """Do what is not done: all of it, or the files before ``until``."""
    run.fallback("CLIP scorer: not used, no weights")
    for index, (image_id, _) in enumerate(start.files[:until]):
        if image_id not in run.done:
            run.add(make_record(start, index), make_artifacts(start, index))
    if until is None:
        run.finish(make_statistics(run.done.values()))


def render(run_dir: Path) -> list[Path]:
    """Write what the real renderer writes, as far as verification looks into it."""
    report = read_report(run_dir)
    n_draws = report.audit and report.audit.n_draws
    summary = json.dumps({"head_hash": report.provenance.head_hash, "audit": n_draws}).encode()
    attached = {"ledger.jsonl": (run_dir / "ledger.jsonl").read_bytes(), "report.json": summary}
    (run_dir / "report.json").write_bytes(summary)
    (run_dir / "results.csv").write_text("file,decision\n")
    write_pdf(run_dir / "report.pdf", attached, report.provenance.head_hash)
    return [run_dir / name for name in ("report.pdf", "report.json", "results.csv")]


def write_pdf(path: Path, attached: dict[str, bytes], head: str = "") -> None:
    with pikepdf.new() as pdf:
        page = pdf.add_blank_page()
        font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
        page.Resources = Dictionary(Font=Dictionary(F1=font))
        page.Contents = pdf.make_stream(f"BT /F1 6 Tf 40 40 Td (Head hash \\(sha256\\) {head}) Tj ET".encode())
        for name, data in attached.items():
            pdf.attachments[name] = pikepdf.AttachedFileSpec(pdf, data, filename=name)
        pdf.save(path)


def finished_run(run_dir: Path, start: RunStart | None = None) -> Path:
    """A run with all its files and a rendered report."""
    start = start or make_start()
    with Run.open(run_dir, start) as run:
        continue_run(run, start)
        run.note_rendered(render(run_dir))
    return run_dir


def passed_run(run_dir: Path, n_passed: int, **changes: Any) -> Path:
    """A finished run, not rendered: a rejected file in front of ``n_passed`` that passed, every second by ACCEPT."""
    start = make_start(1 + n_passed, **changes)
    with Run.open(run_dir, start) as run:
        for index, (image_id, file) in enumerate(start.files):
            digest = hashlib.sha256(f"{start.lot.lot_id} {file}".encode()).hexdigest()
            like = make_record(make_start(), 0 if index else 1)
            assert like.verdict is not None
            verdict = replace(like.verdict, decision=Decision.ACCEPT) if index and index % 2 == 0 else like.verdict
            run.add(replace(like, image_id=image_id, file=file, sha256=digest, verdict=verdict), {})
        run.finish(make_statistics(run.done.values()))
    return run_dir


def read_members(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "ledger.jsonl").read_bytes().splitlines()]


def forge(run_dir: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write a ledger with any content whose numbers, chain and trailers are consistent: what a capable forger does."""
    prev, written = "0" * 64, b""
    for seq, members in enumerate(lines, start=1):
        bare = {k: v for k, v in members.items() if k != "trailer"} | {"seq": seq, "prev": prev}
        line = rfc8785.dumps({**bare, "trailer": hashlib.sha256(rfc8785.dumps(bare)).hexdigest()})
        prev, written = hashlib.sha256(line).hexdigest(), written + line + b"\n"
    (run_dir / "ledger.jsonl").write_bytes(written)


def tree(run_dir: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(p.relative_to(run_dir)): p.read_bytes() for p in sorted(run_dir.rglob("*")) if p.is_file()}


def first_problem(run_dir: Path, **options: Any) -> str:
    """What verification names first."""
    verification = verify_run(run_dir, **options)
    assert not verification.ok
    return str(verification.problems[0])
