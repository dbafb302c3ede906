"""From ``[regions]`` in the settings to the report: outlines by Segment Anything, and what is said without them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import explainvad
from tiny_parts import RUSTY, part
from tiny_sam import NAME, write_sam

from explainvad import Inspector, LotReport
from explainvad.config import RegionsConfig
from explainvad.detection.weights_lock import locked_file
from explainvad.errors import ConfigError, IntegrityError, RunConflictError, WeightsError
from explainvad.model_card import NO_SAM
from explainvad.refining import outline_refiner
from explainvad.types import InspectionImage, Region

LOOSE, STRICT = 1e-6, 1.0  # least agreement: a random network's masks pass the one, and none the other


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam(tmp_path_factory.mktemp("weights") / "sam_tiny.safetensors")


@pytest.fixture(scope="module")
def small_lot(lot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of the lot: one normal, two rusty, one foreign."""
    folder = tmp_path_factory.mktemp("small") / "lot"
    folder.mkdir()
    for name in ("lot.toml", "00_good.png", "08_rusty.png", "09_rusty.png", "11_foreign.png"):
        shutil.copy(lot / name, folder)
    return folder


def settings(checkpoint: Path, agreement: float) -> dict[str, object]:
    return {"refine": "sam", "sam": str(checkpoint), "agreement": agreement}


def regions(report: LotReport) -> list[Region]:
    return [finding.region for record in report.records for finding in record.findings]


def verdicts(report: LotReport) -> list[tuple[str, float]]:
    return [(r.decision.value, r.verdict.p_value) for r in report.records if r.verdict]


@pytest.fixture(scope="module")
def plain(inspector: Inspector, small_lot: Path, tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    return inspector.analyze(small_lot, tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="module")
def loose(
    inspector: Inspector, small_lot: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> LotReport:
    report = inspector.analyze(
        small_lot, tmp_path_factory.mktemp("runs") / "loose", regions=settings(checkpoint, LOOSE)
    )
    report.render(formats=["html", "json", "parquet"])
    return report


def test_outlines_follow_sam_and_the_verdicts_stay(plain: LotReport, loose: LotReport) -> None:
    before, after = regions(plain), regions(loose)
    assert len(before) == len(after) >= 3
    assert verdicts(plain) == verdicts(loose)
    by_sam = [(old, new) for old, new in zip(before, after, strict=True) if new.refined_by == "sam"]
    assert by_sam
    for old, new in by_sam:
        mask = new.mask.to_array()
        y, x = np.nonzero(mask)
        assert new.xyxy == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert new.area_px == mask.sum() and new.area_mm2 == pytest.approx(0.25 * new.area_px)
        for name in ("region_id", "peak_xy", "peak_value", "mass", "p_value"):
            assert getattr(new, name) == getattr(old, name)
        assert new.evidence_share == old.evidence_share
        assert new.refinement and new.refinement.agreement >= LOOSE
        assert new.outline == f"outline by SAM {NAME}, agreement {new.refinement.agreement:.2f}"
    facts = [finding.facts.area_px for record in loose.records for finding in record.findings]
    assert facts == [region.area_px for region in after]


def test_where_sam_disagrees_the_threshold_outline_stays_and_the_report_says_so(
    inspector: Inspector, small_lot: Path, checkpoint: Path, plain: LotReport, tmp_path: Path
) -> None:
    report = inspector.analyze(small_lot, tmp_path / "run", regions=settings(checkpoint, STRICT))
    for old, new in zip(regions(plain), regions(report), strict=True):
        assert new.refined_by == "threshold" and new.refinement
        assert (new.mask.counts, new.xyxy, new.area_px) == (old.mask.counts, old.xyxy, old.area_px)
        assert new.outline.startswith("threshold outline kept: SAM disagreed (0.") and "< 1.00)" in new.outline


def test_the_report_names_the_weights_and_every_outline(loose: LotReport, plain: LotReport, checkpoint: Path) -> None:
    sha256 = locked_file(checkpoint).sha256
    assert loose.model.outlines == f"SAM {NAME}: sam_tiny.safetensors, sha256 {sha256[:16]}…, licence not stated"
    assert NO_SAM not in loose.model.fallbacks and NO_SAM in plain.model.fallbacks and plain.model.outlines is None
    recorded = loose.provenance.config["regions"]
    assert recorded == {"refine": "sam", "sam": f"SAM {NAME}, sha256 {sha256}", "agreement": LOOSE}
    html = (loose.run_dir / "report.html").read_text("utf-8")
    assert "SAM only draws the outline" in html and sha256[:16] in html and sha256 in html
    for region in regions(loose):
        assert region.outline in html
    assert str(checkpoint.parent) not in html + (loose.run_dir / "ledger.jsonl").read_text("utf-8")
    document = json.loads((loose.run_dir / "report.json").read_text("utf-8"))
    told = [f["region"]["refinement"] for r in document["records"] for f in r["findings"]]
    assert [t["model"] for t in told] == [f"SAM {NAME}"] * len(told)
    rows = pq.read_table(io.BytesIO((loose.run_dir / "results.parquet").read_bytes())).to_pylist()
    told = [region for row in rows for region in row["regions"] or ()]
    assert [t["outline"] for t in told] == [region.outline for region in regions(loose)]
    assert [t["agreement"] for t in told] == [r.refinement and r.refinement.agreement for r in regions(loose)]


def test_the_same_weights_draw_the_same_outlines(
    inspector: Inspector, checkpoint: Path, model: Path, tmp_path: Path
) -> None:
    image = InspectionImage("img", "img.png", part(1009, RUSTY), "0", 1, Path("img.png"))
    config = inspector.config.model_copy(update={"regions": RegionsConfig(**settings(checkpoint, LOOSE))})
    first, second = (who.inspect(image, config)[0].findings for who in (inspector, Inspector.load(model, "cpu")))
    assert [f.region.mask.counts for f in first] == [f.region.mask.counts for f in second]
    assert first and first[0].region.refinement and second[0].region.refinement
    assert first[0].region.refinement.agreement == second[0].region.refinement.agreement


def test_other_weights_do_not_resume_a_run(
    inspector: Inspector, loose: LotReport, small_lot: Path, tmp_path: Path
) -> None:
    other = write_sam(tmp_path / "sam_tiny.safetensors", seed=1)
    with pytest.raises(RunConflictError, match=r"config\.regions\.sam is"):
        inspector.analyze(small_lot, loose.run_dir, regions=settings(other, LOOSE))


def test_missing_weights_are_told_before_the_lot_is_touched(
    inspector: Inspector, small_lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(tmp_path / "store"))
    for sam, said in (
        ("sam-vit-b", r"run `explainvad models pull sam-vit-b`"),
        ("mine", r"explainvad models pull mine --from FOLDER"),
        (str(tmp_path / "none.pth"), r"no checkpoint of Segment Anything at .*none\.pth: .*`explainvad models pull"),
    ):
        with pytest.raises(WeightsError, match=said):
            inspector.analyze(small_lot, tmp_path / "run", regions={"refine": "sam", "sam": sam})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r'refine = "sam" needs sam = "NAME"'):
        inspector.analyze(small_lot, tmp_path / "run", regions={"refine": "sam"})


def test_settings_beside_the_lot_switch_it_on(model: Path, small_lot: Path, checkpoint: Path, tmp_path: Path) -> None:
    lot = shutil.copytree(small_lot, tmp_path / "line" / "lot")
    shutil.copy(checkpoint, tmp_path / "line" / "sam.safetensors")
    (tmp_path / "line" / "explainvad.toml").write_text(
        f'model = "{model}"\ndevice = "cpu"\n[regions]\nrefine = "sam"\nsam = "./sam.safetensors"\nagreement = 1e-6\n'
    )
    run = tmp_path / "run"
    assert explainvad("analyze", str(lot), "--out", str(run), "--formats", "csv").code == 0
    assert f'"sam":"SAM {NAME}, sha256 ' in (run / "ledger.jsonl").read_text("utf-8")
    assert '"refined_by":"sam"' in (run / "ledger.jsonl").read_text("utf-8")


def test_weights_by_name_are_those_of_the_lock(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(tmp_path / "store"))
    done = explainvad("models", "pull", "sam-own", "--from", str(checkpoint))
    assert done.code == 0 and "locked  sam-own" in done.out
    wanted = RegionsConfig(refine="sam", sam="sam-own")
    refiner = outline_refiner(wanted, "cpu")
    assert refiner and refiner.describe().startswith(f"SAM {NAME}: sam-own from a folder, sha256 ")
    tensors = tmp_path / "store" / "sam-own" / "sam_model.safetensors"
    assert refiner.sha256 == locked_file(tensors).sha256
    write_sam(tensors, seed=1)
    with pytest.raises(IntegrityError, match="the weights were altered"):
        outline_refiner(wanted, "cpu")
