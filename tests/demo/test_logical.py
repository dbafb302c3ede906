"""Trays: the rule tells them apart exactly, small patches cannot, and masks lie where the rule is broken."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from explainvad.demo.logical import LOGICAL, STRUCTURAL, Tray, draw_tray, make_logical
from explainvad.demo.logical.layout import COUNTS, LEFT, RIGHT, Item, broken_rules, good_layout
from explainvad.demo.logical.picture import TrayShot, expose, lay
from explainvad.errors import UsageError
from explainvad.evaluation.datasets.load import load_dataset

GOOD = "good"
KINDS = (*LOGICAL, *STRUCTURAL)


def trays(kind: str, count: int, role: int = 1) -> list[Tray]:
    return [draw_tray(kind, i, np.random.default_rng([role, (GOOD, *KINDS).index(kind), i])) for i in range(count)]


def read_items(picture: np.ndarray) -> list[Item]:
    """What a person sees on a tray: blobs of colour, each by its hue, size and place."""
    r, g, b = picture.astype(int).transpose(2, 0, 1)
    hues = {
        "ring": (r - b > 60) & (g - b > 25),  # or the clip, which is as warm and twice as wide
        "bolt": (np.minimum(np.minimum(r, g), b) > 135) & (np.abs(r - b) < 30),
        "red": (r - g > 60) & (r - b > 60) & (g - b <= 25),
        "green": (g - r > 40) & (g - b > 20),
        "blue": (b - r > 40) & (b - g > 30),
    }
    found = []
    for hue, seen in hues.items():
        blobs, n = ndimage.label(ndimage.binary_closing(seen, iterations=2))
        for blob in range(1, n + 1):
            y, x = np.nonzero(blobs == blob)
            if len(y) < 40:
                continue
            part = hue if hue in ("ring", "bolt") else ("flag-" if x.mean() < 64 else "cap-") + hue
            part = "clip" if part == "ring" and np.ptp(x) > 20 else part
            found.append(Item(part, float(x.mean()), float(y.mean())))
    return found


def straight(kind: str, number: int) -> tuple[np.ndarray, tuple[Item, ...]]:
    """A tray that lies straight, so that places can be read off the picture."""
    rng = np.random.default_rng([5, (GOOD, *LOGICAL).index(kind), number])
    layout, shot = good_layout(rng), TrayShot.draw(rng)
    if kind in LOGICAL:
        layout = LOGICAL[kind](layout, number, rng).layout
    straightened = TrayShot(
        (0.0, 0.0), 0.0, 1.0, shot.gain, shot.gradient, shot.white_balance, shot.sheet, shot.noise_seed
    )
    return expose(lay(layout, straightened), straightened), layout


@pytest.mark.parametrize("kind", [GOOD, *LOGICAL])
def test_a_person_who_knows_the_rule_finds_every_logical_defect_in_the_picture(kind: str) -> None:
    for number in range(12):
        picture, layout = straight(kind, number)
        seen = read_items(picture)
        assert sorted(item.part for item in seen) == sorted(item.part for item in layout)
        assert broken_rules(seen) == broken_rules(layout) == (() if kind == GOOD else (kind,))


def test_good_trays_vary_in_all_that_the_rule_leaves_open() -> None:
    layouts = [tray.layout for tray in trays(GOOD, 60)]

    assert {sum(i.part == "bolt" for i in layout) for layout in layouts} == set(COUNTS)
    assert {item.part for layout in layouts for item in layout} >= {"flag-red", "flag-green", "flag-blue", "cap-red"}
    for seats, part in ((LEFT, "bolt"), (RIGHT, "ring")):
        assert all(any(i.part == part and i.lies_in(s) for layout in layouts for i in layout) for s in seats)


def test_every_number_of_parts_on_a_tray_with_a_wrong_count_occurs_on_good_ones() -> None:
    counts = [[sum(i.part == part for i in t.layout) for part in ("bolt", "ring")] for t in trays("wrong_count", 40)]

    assert all(bolts != rings and {bolts, rings} <= set(COUNTS) for bolts, rings in counts)
    assert {np.sign(bolts - rings) for bolts, rings in counts} == {-1, 1}
    assert {abs(bolts - rings) for bolts, rings in counts} == {1, 2}


@pytest.mark.parametrize(("kind", "regions"), [("wrong_place", {1}), ("wrong_pair", {2}), ("missing_part", {1})])
def test_a_mask_marks_the_wrong_things_and_no_others(kind: str, regions: set[int]) -> None:
    for tray in trays(kind, 12):
        assert ndimage.label(tray.mask)[1] in regions
        assert 90 < tray.mask.sum() < 420


def test_a_mask_of_a_count_marks_as_many_places_as_there_are_too_many_or_too_few() -> None:
    for tray in trays("wrong_count", 16):
        bolts, rings = (sum(i.part == part for i in tray.layout) for part in ("bolt", "ring"))
        assert ndimage.label(tray.mask)[1] == abs(bolts - rings)


def test_the_mask_of_a_missing_clip_is_where_nothing_but_the_plate_is() -> None:
    for tray in trays("missing_part", 12):
        y, x = np.argwhere(tray.mask).mean(axis=0)
        assert abs(x - 64) < 8 and abs(y - 115) < 8
        assert np.ptp(tray.picture[tray.mask].astype(int).mean(axis=1)) < 60


@pytest.mark.parametrize("kind", STRUCTURAL)
def test_structural_defects_are_seen_and_break_no_rule(kind: str) -> None:
    for tray in trays(kind, 6):
        assert broken_rules(tray.layout) == ()
        assert 15 < tray.mask.sum() < 0.05 * tray.mask.size


def patches(tray: Tray, side: int = 8, step: int = 5) -> np.ndarray:
    view = np.lib.stride_tricks.sliding_window_view(tray.picture.astype(np.float32), (side, side), axis=(0, 1))
    return view[::step, ::step].reshape(-1, 3 * side * side)


def test_small_patches_tell_structural_defects_from_good_trays_but_not_logical_ones() -> None:
    """Distance of the worst 8 x 8 px patch to the nearest one of good trays, on principal components."""
    bank = np.concatenate([patches(tray) for tray in trays(GOOD, 24, role=0)])
    components = PCA(12, random_state=0).fit(bank)
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(components.transform(bank))

    def scores(kind: str, count: int) -> list[float]:
        found = (nearest.kneighbors(components.transform(patches(tray)))[0].max() for tray in trays(kind, count))
        return [float(distance) for distance in found]

    good = scores(GOOD, 24)
    auroc = {}
    for kind in KINDS:
        bad = scores(kind, 12)
        auroc[kind] = roc_auc_score([0] * len(good) + [1] * len(bad), good + bad)
    assert all(auroc[kind] < 0.70 for kind in LOGICAL), auroc
    assert abs(np.mean([auroc[kind] for kind in LOGICAL]) - 0.5) < 0.12, auroc
    assert auroc["stain"] > 0.9 and auroc["dent"] > 0.8, auroc


def test_grey_levels_of_logical_defects_are_those_of_good_trays() -> None:
    """Total variation between mean histograms of the same trays: at most the share of a tray that a clip covers."""

    def histogram(kind: str) -> np.ndarray:
        drawn = (draw_tray(kind, i, np.random.default_rng([2, i])) for i in range(24))
        return np.mean([np.histogram(tray.picture, 32, (0, 256))[0] / tray.picture.size for tray in drawn], axis=0)

    good = histogram(GOOD)
    assert all(np.abs(histogram(kind) - good).sum() / 2 < 0.02 for kind in LOGICAL)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_folder_is_a_labelled_data_set_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    small = make_logical(tmp_path / "small", seed=3, n_train=2, n_good=2, n_each=1)
    large = make_logical(tmp_path / "large", seed=3, n_train=3, n_good=2, n_each=1)
    other = make_logical(tmp_path / "other", seed=4, n_train=2, n_good=2, n_each=1)
    dataset = load_dataset(small)

    assert len(dataset.train) == 2 and not dataset.unmasked_defects
    assert {item.defect for item in dataset.items} == {None, *KINDS}
    assert digests(small).items() < digests(large).items()
    assert not set(digests(small).values()) & set(digests(other).values())
    assert Image.open(dataset.train[0]).size == (128, 128)


def test_a_folder_with_something_else_and_impossible_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")

    with pytest.raises(UsageError, match="new or empty folder"):
        make_logical(tmp_path)
    with pytest.raises(UsageError, match="at least 1 image of each kind, got seed 7 and 60, 0 and 10"):
        make_logical(tmp_path / "new", n_good=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
