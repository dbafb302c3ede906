"""Which model a lot is inspected with, and what is said where there is none or more than one."""

from __future__ import annotations

from pathlib import Path

import pytest

from explainvad.bundle import find_model, write_bundle
from explainvad.errors import ModelNotFoundError


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    path = tmp_path / "line" / "2024" / "lot42"
    path.mkdir(parents=True)
    return path


def test_a_configured_model_is_taken_unseen(lot: Path) -> None:
    write_bundle(lot.parent / "near.evad", {}, {}, {})
    assert find_model(lot, Path("elsewhere.evad")) == Path("elsewhere.evad")


@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_the_only_model_in_the_lot_beside_it_or_above_is_found(
    lot: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (lot / place / "any.evad").resolve()
    write_bundle(path, {}, {}, {})
    assert find_model(lot, None) == path
    monkeypatch.chdir(lot.parent)
    assert find_model(Path("lot42"), None) == path


def test_the_nearest_model_is_taken(lot: Path) -> None:
    for folder in (lot.parent, lot.parents[1]):
        write_bundle(folder / "any.evad", {}, {}, {})
    assert find_model(lot, None) == lot.parent / "any.evad"


def test_several_models_are_a_question(lot: Path) -> None:
    for name in ("b.evad", "a.evad"):
        write_bundle(lot.parent / name, {}, {}, {})
    with pytest.raises(ModelNotFoundError, match=r"holds 2 models \(a\.evad, b\.evad\): say which with --model"):
        find_model(lot, None)


def test_what_only_bears_the_name_is_no_model(lot: Path) -> None:
    (lot / "empty.evad").mkdir()
    (lot / "file.evad").write_text("x")
    write_bundle(lot.parent / "real.evad", {}, {}, {})
    assert find_model(lot, None) == lot.parent / "real.evad"


def test_no_model_lists_the_three_ways_out(lot: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(lot, None)
    lines = str(caught.value).splitlines()
    assert lines[0] == "no model was found for lot42. Three ways out:"
    for line, words in zip(lines[1:], ("--model MODEL.evad", 'model = "MODEL.evad"', "explainvad fit"), strict=True):
        assert words in line
