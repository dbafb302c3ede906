"""The notebooks run on what ships and on other data, say what their figures mean, and keep no results in git."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from run_factories import passed_run
from tiny_models import CLIP_CONFIG, write_weights

from explainvad.demo.files import jpeg, png, write
from explainvad.demo.logical import draw_tray, make_logical
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.evaluation.prompt_probe import CLIP
from explainvad.evaluation.scored import GOOD, ScoredImages

FOLDER = Path(__file__).parents[1] / "notebooks"
EXECUTED = FOLDER.parent / "build" / "notebooks"
EXPERIMENTS = ("attention", "identity_mapping", "hybrid", "edge", "pretraining", "zero_shot")
NAMES = ("calibration", "uncertainty", "lot_statistics", "drift", "localized_explanation", *EXPERIMENTS)
LONG = {"hybrid", "edge", "pretraining"}  # they fit most models
COMPARED = re.compile(r"a difference of ([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]: \*\*(.+)\*\*\.")


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def parameter_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]


def executed(name: str, source: Path | None = None, store: Path | None = None) -> NotebookNode:
    """A copy that was run where the notebook lies, with another ``SOURCE`` and other weights where they are given."""
    notebook = read(name)
    if source is not None:
        (cell,) = parameter_cells(notebook)
        cell.source = f"SOURCE = {str(source)!r}"
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(FOLDER)}})
    weights = {"EXPLAINVAD_WEIGHTS": str(store)} if store else {}
    return client.execute(env={**os.environ, **weights, "OMP_NUM_THREADS": "1"})


def shown(cell: NotebookNode, kind: str) -> list[str]:
    return [output.data[kind] for output in cell.get("outputs", ()) if kind in output.get("data", {})]


def conclusions(notebook: NotebookNode) -> list[str]:
    """The sentences that the last cell made from the numbers."""
    (text,) = shown(notebook.cells[-1], "text/markdown")
    return [line.removeprefix("- ") for line in text.splitlines()]


def check_claims(says: list[str]) -> None:
    """A difference is claimed where its interval lies on one side of zero, and nowhere else."""
    compared = [(*map(float, found.groups()[:3]), found[4]) for text in says if (found := COMPARED.search(text))]
    assert compared
    for value, lower, upper, words in compared:
        assert lower <= value <= upper
        if lower > 0 or upper < 0:
            assert words == ("the former finds more" if lower > 0 else "the former finds less")
        elif lower < 0 < upper:  # at exactly 0.000 the digits do not tell
            assert words == "no difference is shown"


def check_nothing_is_claimed(notebook: NotebookNode) -> None:
    """Of words that an untrained CLIP reads: what luck does with them, and that nothing else can be said."""
    says = conclusions(notebook)
    assert says[0].startswith("**No weights: nothing can be concluded about words.**")
    assert "`explainvad models pull clip-vit-b-16-plus-240`" in says[0]
    loud = [text for cell in notebook.cells for text in shown(cell, "text/markdown") if "UNTRAINED" in text]
    assert loud and "WORDS MEAN NOTHING" in loud[0] and "near 0.5" in loud[0]
    assert not any(COMPARED.search(text) or "find **more**" in text for text in says)
    assert sum("**not answered here**" in text for text in says) == 3
    mean = re.search(r"here it is (0\.\d\d) over 8 untrained CLIPs", says[1])
    least, most, farthest = re.search(r"between (\S+) and (\S+), by .* can be (\S+) away", says[2]).groups()  # type: ignore[union-attr]
    assert mean and 0.4 < float(mean[1]) < 0.6 and float(least) < 0.4 and float(most) > 0.6
    assert float(farthest) == pytest.approx(max(0.5 - float(least), float(most) - 0.5), abs=0.011)


def test_these_are_all_the_notebooks() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert all(f"]({name}.ipynb)" in readme for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_keeps_no_results_and_has_one_parameter(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)

    (cell,) = parameter_cells(notebook)
    (statement,) = ast.parse(cell.source).body
    assert isinstance(statement, ast.Assign)
    assert ast.unparse(statement) == "SOURCE = ''"
    assert "**Question.**" in notebook.cells[0].source
    assert "**What it takes.**" in notebook.cells[0].source
    assert "\nassert " in notebook.cells[-1].source


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.thorough) if n in LONG else n for n in NAMES])
def test_a_notebook_runs_and_explains_its_figures(name: str) -> None:
    notebook = executed(name)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, EXECUTED / f"{name}.ipynb")
    drawing = [i for i, cell in enumerate(notebook.cells) if shown(cell, "image/png")]
    assert len(drawing) >= 4
    for i in drawing:
        following = notebook.cells[i + 1]
        assert following.cell_type == "markdown", f"cell {i} of {name} draws and is not explained"
        assert following.source.startswith("**To an auditor.**")
    complaints = [o.text for cell in notebook.cells for o in cell.get("outputs", ()) if o.output_type == "stream"]
    assert not complaints
    says = conclusions(notebook)
    assert len(says) >= 4
    if name == "zero_shot" and says[0].startswith("**No weights"):
        check_nothing_is_claimed(notebook)
    elif name in EXPERIMENTS:
        check_claims(says)


@pytest.mark.thorough
def test_calibration_of_other_scores(tmp_path: Path) -> None:
    """Too few labelled defects for a probability, too few good images for alpha = 0.01: it says so, and still runs."""
    images = ScoredImages.load(FOLDER / "data" / "demo_scores.npz")
    good, bad = (np.flatnonzero(chosen) for chosen in (images.kinds == GOOD, images.kinds != GOOD))
    kept = np.concatenate([good[:80], bad[:30]])
    columns = ({name: v[kept] for name, v in of.items()} for of in (images.values, images.members, images.features))
    few = ScoredImages(images.groups[kept], images.kinds[kept], images.sizes[kept], *columns)
    few.save(tmp_path / "few.npz")
    notebook = executed("calibration", tmp_path / "few.npz")
    assert any("110" in text and "54" in text for cell in notebook.cells for text in shown(cell, "text/plain"))
    assert any("**nothing to judge**" in text for text in conclusions(notebook))
    assert any("at p <= 0.02" in text for text in conclusions(notebook))


@pytest.mark.thorough
def test_statistics_of_another_run(tmp_path: Path) -> None:
    run = passed_run(tmp_path / "run", n_passed=30)
    says = conclusions(executed("lot_statistics", run))
    assert any("How many of the 30 that passed are defective is **not bounded**" in text for text in says)
    assert any(text == "The list at q = 0.1 holds 31 of 31 images; rejected: 1." for text in says)


@pytest.mark.thorough
def test_pretraining_with_weights_on_another_data_set(tmp_path: Path) -> None:
    """With something called DINO in the store its question is answered; what lies there is untrained, and finds so."""
    small = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    statistics = {"mean": [0.5] * 3, "std": [0.25] * 3}
    config = {"architecture": "vit_small_patch16_224", "model_args": small, "pretrained_cfg": statistics}
    write_weights(tmp_path / "vit", "timm", config)
    bring(WeightStore(tmp_path / "store"), "dino-small", tmp_path / "vit")
    trays = make_logical(tmp_path / "trays", seed=3, n_train=6, n_good=6, n_each=1)
    notebook = executed("pretraining", trays, tmp_path / "store")
    says = conclusions(notebook)
    check_claims(says)
    assert not any("not answered here" in text or "was not run" in text for text in says)
    assert any(re.search("what random ones do not, is .*supported", text) for text in says)
    assert any("random ViT (" in text and "defects: DINO " in text for text in says)


@pytest.mark.thorough
def test_words_with_weights_on_another_data_set(tmp_path: Path) -> None:
    """With something called CLIP in the store words are compared; what lies there is untrained, and no better."""
    write_weights(tmp_path / "clip", "open_clip", CLIP_CONFIG)
    bring(WeightStore(tmp_path / "store"), CLIP, tmp_path / "clip")
    for seed, category in enumerate(("carpet", "odd_thing")):
        make_logical(tmp_path / "set" / category, seed, n_train=2, n_good=6, n_each=2)
    notebook = executed("zero_shot", tmp_path / "set", tmp_path / "store")
    says = conclusions(notebook)
    check_claims(says)
    text = "\n".join(says)
    assert "nothing can be concluded" not in text and "UNTRAINED" not in text
    assert "AUROC on carpet defects: words of the trade" in text and "AUROC on odd_thing defects: its own words" in text
    kinds = re.search(r"Of (\d+) kinds of defects words of the trade find (\d+), .* find (\d+) and take (\d+)", text)
    assert kinds and int(kinds[1]) == 14 == sum(map(int, kinds.groups()[1:]))


@pytest.mark.thorough
def test_words_without_weights_on_one_category(tmp_path: Path) -> None:
    make_logical(tmp_path / "trays", n_train=2, n_good=6, n_each=1)
    says = conclusions(executed("zero_shot", tmp_path / "trays", tmp_path / "no weights"))
    assert says[0].startswith("**No weights: nothing can be concluded about words.**")
    assert ", 1 category and 3 wordings" in says[1]


def test_pretraining_says_what_was_not_run_and_what_brings_it() -> None:
    text = "".join(cell.source for cell in read("pretraining").cells)
    assert "`explainvad models pull dino-small`" in text and "MODEL_CARD.md" in text


@pytest.mark.thorough
# the one trains for minutes, the other compares nothing without weights and has tests of its own
@pytest.mark.parametrize("name", sorted({*EXPERIMENTS} - {"identity_mapping", "zero_shot"}))
def test_experiments_on_another_data_set(name: str, tmp_path: Path) -> None:
    """Two kinds of structural defects in the flat layout: what needs logical ones says that there are none."""
    for kind, count in {"good": 18, "scratch": 5, "dent": 5}.items():
        for i in range(count):
            tray = draw_tray(kind, i, np.random.default_rng([9, len(kind), i]))
            write(tmp_path / kind / f"{i}.jpg", jpeg(tray.picture))
            if tray.mask.any():
                write(tmp_path / "ground_truth" / kind / f"{i}.png", png(tray.mask))
    says = conclusions(executed(name, tmp_path))
    check_claims(says)
    assert not any("on logical defects:" in text for text in says)
    assert name != "attention" or any("**not judged**" in text for text in says)
