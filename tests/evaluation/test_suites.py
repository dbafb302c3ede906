"""A suite that is cut short goes on where it stopped; its tables say what its results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import explainvad
from test_evaluate import N_FOREIGN, N_RUSTY, write_dataset
from tiny_parts import CONFIG, write_part

from explainvad import Inspector
from explainvad.errors import LotError, RunConflictError
from explainvad.evaluation import evaluate
from explainvad.evaluation.comparing import compare_runs, comparison_table
from explainvad.evaluation.suite_tables import latex, markdown, summary
from explainvad.evaluation.suites import evaluate_suite

CATEGORIES = ("bolt", "nut")


@pytest.fixture
def suite(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two categories in MVTec AD's layout, and a fit that takes no time."""
    monkeypatch.setattr(evaluate, "RESAMPLES", 40)
    monkeypatch.setattr(Inspector, "fit", lambda *_, **__: Inspector.load(model, "cpu"))
    for number, name in enumerate(CATEGORIES):
        root = write_dataset(tmp_path / "data" / name, 4, test="test")
        for i in range(3):
            write_part(root / "train" / "good" / f"{i:03d}.png", 9000 + 10 * number + i)
    return tmp_path / "data"


def test_each_category_is_measured_and_tabled(suite: Path, tmp_path: Path) -> None:
    whole = evaluate_suite(suite, tmp_path / "out", config=CONFIG)
    assert list(whole["categories"]) == list(CATEGORIES)
    for name in CATEGORIES:
        results = json.loads((tmp_path / "out" / name / "metrics.json").read_text("utf-8"))
        row = whole["categories"][name]
        assert row["image_auroc"] == results["image_auroc"] and row["aupro_0.05"] == results["pixel"]["aupro"]["0.05"]
        assert (row["n_good"], row["n_defect"]) == (4, N_RUSTY + N_FOREIGN)
    both = [whole["categories"][name]["image_auroc"]["estimate"] for name in CATEGORIES]
    assert whole["mean"]["image_auroc"] == {"estimate": pytest.approx(np.mean(both)), "n_categories": 2}
    assert json.loads((tmp_path / "out/suite.json").read_text("utf-8")) == json.loads(json.dumps(whole))
    assert (tmp_path / "out/suite.md").read_text("utf-8") == markdown(whole)
    assert (tmp_path / "out/suite.tex").read_text("utf-8") == latex(whole)


def test_what_was_cut_short_is_resumed_and_ends_the_same(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = evaluate_suite(suite, tmp_path / "unbroken", config=CONFIG)
    measured: list[str] = []
    real = Inspector.inspect_with_map

    def counting(self: Inspector, image: Any, cell: str = "") -> Any:
        measured.append(image.file)
        if len(measured) == 15:  # within the second category
            raise KeyboardInterrupt
        return real(self, image, cell)

    monkeypatch.setattr(Inspector, "inspect_with_map", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(suite, tmp_path / "out", config=CONFIG)
    assert (tmp_path / "out/bolt/metrics.json").exists() and not (tmp_path / "out/nut/metrics.json").exists()
    measured.clear()
    measured += ["past the interruption"] * 20
    resumed = evaluate_suite(suite, tmp_path / "out", config=CONFIG)
    assert len(measured) == 20 + 4 + N_RUSTY + N_FOREIGN  # only the second category
    assert resumed.pop("times").keys() == unbroken.pop("times").keys()
    assert resumed == unbroken


def test_other_settings_or_images_are_never_mixed_with_what_is_there(suite: Path, tmp_path: Path) -> None:
    evaluate_suite(suite, tmp_path / "out", config=CONFIG)
    with pytest.raises(RunConflictError, match=r"bolt/metrics\.json was measured with other settings"):
        evaluate_suite(suite, tmp_path / "out", config=CONFIG.model_copy(update={"alpha": 0.2}))
    write_part(suite / "bolt/test/good/888.png", 8888)
    with pytest.raises(RunConflictError, match="other settings, images or another version"):
        evaluate_suite(suite, tmp_path / "out", config=CONFIG)
    (tmp_path / "out/bolt/metrics.json").write_text("{")
    with pytest.raises(RunConflictError, match="remove it to measure this category again"):
        evaluate_suite(suite, tmp_path / "out", config=CONFIG)


def test_a_suite_fits_each_category(tmp_path: Path) -> None:
    for option in (("--model", "m.evad"), ("--category", "nut"), ("--text",)):
        done = explainvad("evaluate", tmp_path, "--out", tmp_path / "out", "--suite", *option)
        assert done.code == 2 and "--suite fits each category anew" in done.err


# --- Tables by hand


def results(auroc: float | None, low: float = 0.0, high: float = 1.0, seed: int = 3) -> dict[str, Any]:
    value = None if auroc is None else {"estimate": auroc, "lower": low, "upper": high}
    none = {"0.30": None, "0.05": None}
    return {
        **{f"image_{name}": value if name == "auroc" else None for name in ("auroc", "aupr", "f1_deployed", "f1_max")},
        "pixel": {
            **dict.fromkeys(("auroc", "aupr", "f1_deployed", "f1_max", "aupimo", "pointing")),
            "aupro": {"0.30": value, "0.05": None},
            "auspro": none,
        },
        "n_good": 3,
        "n_defect": 2,
        "fit_seconds": None if auroc is None else 61.4,
        "cost": {"median": 0.0123},
        "made_with": {"profile": "edge", "seed": seed, "versions": {"torch": "2.0"}, "platform": "Linux"},
    }


def test_tables_by_hand() -> None:
    suite = summary(
        "Own", "no licence", {"metal_nut": results(0.875, 0.5, 1.0), "100%": results(0.625), "x": results(None)}
    )
    assert suite["mean"]["image_auroc"] == {"estimate": 0.75, "n_categories": 2}
    lines = markdown(suite).splitlines()
    assert "| category | image AUROC | AUPRO (FPR <= 0.30) | fit, s | an image, ms |" in lines
    assert "| metal_nut | 87.5 [50.0, 100.0] | 87.5 [50.0, 100.0] | 61 | 12 |" in lines
    assert "| x | - | - | - | 12 |" in lines and "| mean | 75.0 | 75.0 |  |  |" in lines
    assert lines[-1] == "Profile edge, seed 3; torch 2.0; Linux."
    tex = latex(suite)
    assert r"\begin{tabular}{lrrrr}" in tex and r"AUPRO (FPR $\leq$ 0.30)" in tex
    assert r"metal\_nut & 87.5 {\scriptsize [50.0, 100.0]} &" in tex and r"100\% & 62.5" in tex


def test_categories_that_were_not_made_alike_are_told() -> None:
    both = summary("Own", "no licence", {"a": results(0.9, seed=1), "b": results(0.9, seed=2)})
    last = markdown(both).splitlines()[-1]
    assert last.startswith("Not all alike: Profile edge, seed 1; ") and "Profile edge, seed 2; " in last


# --- Two runs in pairs


def write_run(folder: Path, values: np.ndarray, estimate: float, images: str = "same", seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    arrays = {"image AUROC": values, "estimate image AUROC": np.array(estimate)}
    np.savez(folder / "resamples.npz", sha256=np.array([images]), seed=np.array(seed), **arrays)
    return folder


def test_differences_are_paired(tmp_path: Path) -> None:
    # Both vary by 0.1 from resample to resample, but together: the first is better by 0.02 in each
    shared = 0.8 + 0.1 * np.random.default_rng(0).standard_normal(999)
    first = write_run(tmp_path / "a", shared + 0.02, 0.82)
    second = write_run(tmp_path / "b", shared, 0.80)
    (d,) = compare_runs(first, second)
    assert (d.first, d.second) == (0.82, 0.80)
    assert (d.lower, d.upper) == pytest.approx((0.02, 0.02))
    assert d.p_value == 2 / 1000 and d.significant
    alone = write_run(tmp_path / "c", np.random.default_rng(1).permutation(shared), 0.80)
    (d,) = compare_runs(first, alone)
    assert d.lower < 0 < d.upper and not d.significant
    (d,) = compare_runs(second, second)
    assert d.p_value == 1


def test_holm_corrects_over_categories(tmp_path: Path) -> None:
    # p = 2 * (1 + k) / 100, for k of 99 resamples on the other side
    for number, k in enumerate((0, 1, 40)):
        values = np.where(np.arange(99) < k, -0.1, 0.1)
        write_run(tmp_path / "a" / f"c{number}", 0.8 + values, 0.9)
        write_run(tmp_path / "b" / f"c{number}", np.full(99, 0.8), 0.8)
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert [d.p_value for d in found] == pytest.approx([0.02, 0.04, 0.82])
    assert [d.adjusted for d in found] == pytest.approx([0.06, 0.08, 0.82])
    assert not any(d.significant for d in found)
    assert "c0" in comparison_table(found)


def test_runs_on_other_images_or_resamples_are_refused(tmp_path: Path) -> None:
    values = np.full(9, 0.5)
    first = write_run(tmp_path / "a", values, 0.5)
    for other in (
        write_run(tmp_path / "b", values, 0.5, images="others"),
        write_run(tmp_path / "c", values, 0.5, seed=1),
    ):
        with pytest.raises(LotError, match="expected the same test images"):
            compare_runs(first, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LotError, match=r"holds no resamples\.npz"):
        compare_runs(first, tmp_path / "empty")


def test_two_runs_are_compared_from_the_command_line(suite: Path, tmp_path: Path) -> None:
    evaluate_suite(suite, tmp_path / "one", config=CONFIG)
    evaluate_suite(suite, tmp_path / "two", config=CONFIG)
    done = explainvad("compare", tmp_path / "one", tmp_path / "two")
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines() if line.startswith(CATEGORIES)]
    assert {row[0] for row in rows} == set(CATEGORIES)
    assert all("+0.0" in row and row[-1] == "1.000" for row in rows)
