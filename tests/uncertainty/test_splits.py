"""Groups are never divided, sizes follow the fractions, and refusals name the numbers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from explainvad.errors import TooFewImagesError
from explainvad.uncertainty.splits import (
    FRACTIONS,
    LEAVE_ONE_OUT,
    SMALLEST,
    SPLIT,
    Split,
    grouped_split,
    leave_one_out_split,
    one_of_each,
)

SUM = sum(SMALLEST.values()) + 19  # what alpha = 0.05 needs at least


def singles(n: int, seed: int = 0, cal_needed: int = 19) -> Split:
    return grouped_split([f"{i}.png" for i in range(n)], "every image its own group", seed, cal_needed)


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.fit), len(split.norm), len(split.cal[""])


# --- Dealing


@given(st.lists(st.integers(0, 40), max_size=200), st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_groups_are_never_divided(parts: list[int], seed: int, cal_needed: int) -> None:
    labels = [f"part-{part}" for part in parts]
    try:
        split = grouped_split(labels, "", seed, cal_needed)
    except TooFewImagesError:
        return
    pictures = Counter(labels)
    assert set(split.cal) == {""}
    cal = split.cal[""]
    groups = [{labels[i] for i in indices} for indices in (split.fit, split.norm, cal)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == split.n_groups == len(pictures)
    for indices, of in zip((split.fit, split.norm), groups, strict=False):
        assert len(indices) == sum(pictures[g] for g in of)  # FIT and NORM take every picture of a part
    assert len(cal) == len(groups[2]) >= cal_needed  # CAL takes one
    assert len(split.fit) >= SMALLEST["FIT"] and len(split.norm) >= SMALLEST["NORM"]
    assert all(list(x) == sorted(set(x)) for x in (split.fit, split.norm, cal))


@pytest.mark.parametrize("n", [*range(SUM, 130), 500, 1003])
def test_single_images_are_dealt_out_completely(n: int) -> None:
    split = singles(n)
    assert sorted((*split.fit, *split.norm, *split.cal[""])) == list(range(n))
    assert (split.scheme, split.parts) == (SPLIT, ())
    fit, norm, cal = sizes(split)
    assert fit >= 8 and norm >= 8 and cal >= 19
    if n >= 80:  # every fraction is more than the smallest size
        for size, share in zip((fit, norm, cal), FRACTIONS.values(), strict=True):
            assert abs(size - share * n) <= 1


def test_scarce_images_go_first_where_nothing_works_without_them() -> None:
    assert sizes(singles(SUM)) == (8, 8, 19)
    assert sizes(singles(SUM + 5)) == (13, 8, 19)
    assert sizes(singles(115, cal_needed=99)) == (8, 8, 99)
    assert sizes(singles(80)) == (32, 8, 40)


@pytest.mark.parametrize("seed", range(5))
def test_sizes_are_near_the_fractions_for_groups_too(seed: int) -> None:
    labels = [f"part-{i // 4}" for i in range(400)]
    split = grouped_split(labels, "", seed, 19)
    assert abs(len(split.fit) - 160) <= 4
    assert abs(len(split.norm) - 40) <= 4
    assert abs(4 * len(split.cal[""]) - 200) <= 4


def test_cal_draws_its_picture_of_a_part_at_random() -> None:
    labels = [f"part-{i // 4}" for i in range(400)]
    which = Counter(i % 4 for seed in range(20) for i in grouped_split(labels, "", seed, 19).cal[""])
    assert sum(which.values()) == 20 * 50
    assert all(180 < count < 320 for count in which.values())


def test_the_seed_decides_alone() -> None:
    assert asdict(singles(60, seed=1)) == asdict(singles(60, seed=1))
    assert singles(60, seed=1).cal != singles(60, seed=2).cal
    often = Counter(i for seed in range(300) for i in singles(60, seed).cal[""])
    assert len(often) == 60  # every image calibrates now and then, whatever its place in the list


def test_a_split_survives_json() -> None:
    labels, cells = [f"{i // 2}" for i in range(80)], [("front", "back")[i % 2] for i in range(80)]
    few = leave_one_out_split(labels, "in pairs", 0, 19, cells)
    for split in (singles(40), grouped_split(labels, "in pairs", 0, 5, cells), few):
        assert asdict(Split.restore(json.loads(json.dumps(asdict(split))))) == asdict(split)


def test_a_refusal_names_what_is_needed_and_what_there_is() -> None:
    with pytest.raises(TooFewImagesError) as caught:
        singles(SUM - 1)
    text = str(caught.value)
    assert text.startswith("34 reference images in 34 groups are too few: needed are at least 8 for FIT, 8 for NORM, ")
    assert "19 for CAL (35 together; CAL counts groups" in text
    assert "Add reference images, or ask for a larger alpha." in text


def test_many_pictures_of_few_parts_are_too_few() -> None:
    with pytest.raises(TooFewImagesError, match=r"200 reference images in 20 groups are too few"):
        grouped_split([f"part-{i % 20}" for i in range(200)], "", 0, 19)
    assert len(grouped_split([f"part-{i % 21}" for i in range(210)], "", 0, 19).cal[""]) == 19
    with pytest.raises(TooFewImagesError, match=r"0 reference images in 0 groups"):
        grouped_split([], "", 0, 19)


# --- Cells


def dealt_to(split: Split, labels: list[str]) -> dict[str, str]:
    """The split of each group; a group of two is an error."""
    found: dict[str, set[str]] = {}
    for name, indices in (("FIT", split.fit), ("NORM", split.norm), *(("CAL", cal) for cal in split.cal.values())):
        for i in indices:
            found.setdefault(labels[i], set()).add(name)
    assert all(len(names) == 1 for names in found.values()), found
    return {label: name for label, (name,) in found.items()}


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=40, max_size=160),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
)
def test_groups_are_never_divided_though_they_span_cells(
    pictures: list[tuple[int, str]], seed: int, cal_needed: int
) -> None:
    labels, cells = [f"part-{part}" for part, _ in pictures], [cell for _, cell in pictures]
    try:
        split = grouped_split(labels, "", seed, cal_needed, cells)
    except TooFewImagesError:
        return
    dealt = dealt_to(split, labels)
    assert len(dealt) == split.n_groups == len(set(labels))
    for name, indices in (("FIT", split.fit), ("NORM", split.norm)):
        assert [dealt[label] for label in labels].count(name) == len(indices)
    assert len(split.fit) >= SMALLEST["FIT"] and len(split.norm) >= SMALLEST["NORM"]
    for cell, cal in split.cal.items():
        assert {cells[i] for i in cal} <= {cell}
        parts = {labels[i] for i in cal}
        assert len(parts) == len(cal)  # one image of a group and cell
        assert parts == {p for p, c in zip(labels, cells, strict=True) if c == cell and dealt[p] == "CAL"}
        assert list(cal) == sorted(cal)
    assert list(split.cal) == sorted(set(cells))
    assert all(len(cal) >= cal_needed for cal in split.cal.values())


@pytest.mark.parametrize("seed", range(3))
def test_every_split_has_its_share_of_each_cell(seed: int) -> None:
    cells = ["left"] * 100 + ["right"] * 300
    split = grouped_split([str(i) for i in range(400)], "", seed, 19, cells)
    for indices, share in ((split.fit, 0.4), (split.norm, 0.1), (split.cal["left"] + split.cal["right"], 0.5)):
        found = Counter(cells[i] for i in indices)
        assert abs(found["left"] - share * 100) <= 1 and abs(found["right"] - share * 300) <= 1


def test_without_cells_all_images_are_of_one_without_a_name() -> None:
    named = grouped_split([str(i) for i in range(60)], "", 3, 19, ["only"] * 60)
    unnamed = grouped_split([str(i) for i in range(60)], "", 3, 19)
    assert (named.fit, named.norm) == (unnamed.fit, unnamed.norm)
    assert named.cal == {"only": unnamed.cal[""]}


def test_a_part_seen_in_two_cells_calibrates_both() -> None:
    # each part is photographed twice from the front and three times from the back
    labels = [f"{i // 5}" for i in range(200)]
    cells = [("front", "front", "back", "back", "back")[i % 5] for i in range(200)]
    split = grouped_split(labels, "", 0, 19, cells)
    assert set(split.cal) == {"front", "back"}
    parts = {cell: [labels[i] for i in cal] for cell, cal in split.cal.items()}
    assert sorted(parts["front"]) == sorted(parts["back"]) and len(parts["front"]) == 20


def test_each_cell_needs_calibration_images_of_its_own() -> None:
    def two(left: int, right: int) -> Split:
        cells = ["left"] * left + ["right"] * right
        return grouped_split([str(i) for i in range(left + right)], "", 0, 19, cells)

    split = two(35, 200)
    assert len(split.cal["left"]) >= 19
    with pytest.raises(TooFewImagesError) as caught:
        two(20, 200)
    assert str(caught.value) == (
        "20 reference images in 20 groups of left are too few: needed are at least 8 for FIT, 8 for NORM, 19 for CAL "
        "(CAL counts groups of left, FIT and NORM images of all cells); got 81 for FIT, 21 for NORM, 18 for CAL. "
        "Add reference images, or ask for a larger alpha."
    )
    assert [len(two(21, 200).cal[cell]) for cell in ("left", "right")] == [19, 100]
    with pytest.raises(TooFewImagesError, match=r"^20 reference images in 20 groups of right are too few: "):
        two(100, 20)
    with pytest.raises(TooFewImagesError, match=r"3 groups of left .*; got 2 for FIT, 2 for NORM, 1 for CAL\."):
        two(3, 3)


def test_a_missing_picture_of_one_cell_hinders_nothing() -> None:
    labels, cells = [str(i // 3) for i in range(300)], [("front", "back", "side")[i % 3] for i in range(300)]
    split = grouped_split(labels[1:], "", 0, 19, cells[1:])  # part 0 is not seen from the front
    assert {cell: len(cal) for cell, cal in split.cal.items()} == {"back": 49, "front": 49, "side": 49}
    assert sorted({*dealt_to(split, labels[1:])}) == sorted(set(labels))


def test_parts_seen_here_and_there_do_not_crowd_out_the_fit() -> None:
    # 70 parts, each seen in some of three cells: every one of the 7 choices ten times, fewer than CAL needs of a cell
    seen = [(part, cell) for part in range(70) for cell in range(3) if (part % 7 + 1) >> cell & 1]
    split = grouped_split([str(part) for part, _ in seen], "", 0, 19, [f"cell-{cell}" for _, cell in seen])
    assert len(seen) == 120 and {len(cal) >= 19 for cal in split.cal.values()} == {True}
    assert 36 <= len(split.fit) <= 52 and 8 <= len(split.norm) <= 20


def test_a_cell_may_be_calibrated_by_parts_that_were_seen_elsewhere_too() -> None:
    # 15 parts from the left alone and 15 from both sides: either kind is too few by itself
    labels = [*(f"left-{i}" for i in range(15)), *(f"both-{i // 2}" for i in range(30)), *map(str, range(40))]
    cells = ["left"] * 15 + ["left", "right"] * 15 + ["right"] * 40
    split = grouped_split(labels, "", 0, 19, cells)
    assert len(split.cal["left"]) >= 19 and len(split.cal["right"]) >= 19
    assert {labels[i].split("-")[0] for i in split.cal["left"]} == {"left", "both"}


# --- Leaving one out


def few(labels: list[str], cells: list[str] | None = None, seed: int = 0, cal_needed: int = 3) -> Split:
    return leave_one_out_split(labels, "by the table groups.csv", seed, cal_needed, cells)


def test_leave_one_out_uses_every_image_for_everything() -> None:
    split = few(["c", "a", "a", "b", "c", "d"])
    assert split.fit == split.norm == (0, 1, 2, 3, 4, 5)
    assert split.parts == (0, 1, 1, 2, 0, 3)  # numbered as they first appear
    assert (split.n_groups, split.grouping, split.scheme) == (4, "by the table groups.csv", LEAVE_ONE_OUT)
    (cal,) = split.cal.values()
    assert list(cal) == sorted(cal) and sorted(split.parts[i] for i in cal) == [0, 1, 2, 3]


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), min_size=1), st.integers(0, 2**32 - 1))
def test_leave_one_out_calibrates_on_one_of_each_group_and_cell(pictures: list[tuple[int, str]], seed: int) -> None:
    labels, cells = [f"part-{part}" for part, _ in pictures], [cell for _, cell in pictures]
    split = few(labels, cells, seed, cal_needed=1)
    assert list(split.cal) == sorted(set(cells))
    for cell, cal in split.cal.items():
        assert list(cal) == sorted(cal) and {cells[i] for i in cal} == {cell}
        assert sorted(labels[i] for i in cal) == sorted(
            {label for label, c in zip(labels, cells, strict=True) if c == cell}
        )
    assert len(split.parts) == len(labels)
    for i, j in zip(range(len(labels)), range(1, len(labels)), strict=False):
        assert (split.parts[i] == split.parts[j]) == (labels[i] == labels[j])


def test_leave_one_out_counts_the_parts_of_each_cell() -> None:
    labels, cells = [str(i // 2) for i in range(12)], ["left"] * 8 + ["right"] * 4
    assert {cell: len(cal) for cell, cal in few(labels, cells, cal_needed=2).cal.items()} == {"left": 4, "right": 2}
    with pytest.raises(TooFewImagesError) as caught:
        few(labels, cells)
    assert str(caught.value) == (
        "2 reference images of different parts in right are too few: needed are at least 3. "
        "Add reference images, or ask for a larger alpha."
    )
    with pytest.raises(TooFewImagesError, match=r"^6 reference images of different parts are too few: .* least 7"):
        few(labels, cal_needed=7)
    assert len(few(labels, cal_needed=6).cal[""]) == 6


def test_leave_one_out_draws_its_picture_of_a_part_by_the_seed() -> None:
    labels = [str(i // 4) for i in range(80)]
    assert asdict(few(labels, seed=1)) == asdict(few(labels, seed=1))
    which = Counter(i % 4 for seed in range(60) for i in few(labels, seed=seed).cal[""])
    assert sum(which.values()) == 60 * 20
    assert all(210 < count < 390 for count in which.values())


# --- One of each


def test_one_of_each_group_is_drawn_evenly() -> None:
    labels = ["a", "b", "a", "c", "a", "b"]
    drawn = [one_of_each(labels, seed) for seed in range(3000)]
    assert all(chosen == sorted(chosen) for chosen in drawn)
    assert all(sorted(labels[i] for i in chosen) == ["a", "b", "c"] for chosen in drawn)
    counts = Counter(i for chosen in drawn for i in chosen)
    low, high = stats.binom.ppf(1e-6, 3000, 1 / 3), stats.binom.isf(1e-6, 3000, 1 / 3)
    assert all(low <= counts[i] <= high for i in (0, 2, 4))
    low, high = stats.binom.ppf(1e-6, 3000, 1 / 2), stats.binom.isf(1e-6, 3000, 1 / 2)
    assert all(low <= counts[i] <= high for i in (1, 5))
    assert counts[3] == 3000
    assert one_of_each(labels, 5) == one_of_each(labels, 5)
    assert one_of_each([], 0) == []
