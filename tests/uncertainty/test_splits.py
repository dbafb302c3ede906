"""Groups are never divided, sizes follow the fractions, and refusals name the numbers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainvad.errors import ConfigError, TooFewImagesError
from explainvad.uncertainty.splits import FRACTIONS, SMALLEST, Split, group_labels, grouped_split

SUM = sum(SMALLEST.values()) + 19  # what alpha = 0.05 needs at least


def singles(n: int, seed: int = 0, cal_needed: int = 19) -> Split:
    return grouped_split([f"{i}.png" for i in range(n)], "every image its own group", seed, cal_needed)


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.fit), len(split.norm), len(split.cal)


# --- Dealing


@given(st.lists(st.integers(0, 40), max_size=200), st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_groups_are_never_divided(parts: list[int], seed: int, cal_needed: int) -> None:
    labels = [f"part-{part}" for part in parts]
    try:
        split = grouped_split(labels, "", seed, cal_needed)
    except TooFewImagesError:
        return
    pictures = Counter(labels)
    groups = [{labels[i] for i in indices} for indices in (split.fit, split.norm, split.cal)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == split.n_groups == len(pictures)
    for indices, of in zip((split.fit, split.norm), groups, strict=False):
        assert len(indices) == sum(pictures[g] for g in of)  # FIT and NORM take every picture of a part
    assert len(split.cal) == len(groups[2]) >= cal_needed  # CAL takes one
    assert len(split.fit) >= SMALLEST["FIT"] and len(split.norm) >= SMALLEST["NORM"]
    assert all(list(x) == sorted(set(x)) for x in (split.fit, split.norm, split.cal))


@pytest.mark.parametrize("n", [*range(SUM, 130), 500, 1003])
def test_single_images_are_dealt_out_completely(n: int) -> None:
    split = singles(n)
    assert sorted((*split.fit, *split.norm, *split.cal)) == list(range(n))
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
    assert abs(4 * len(split.cal) - 200) <= 4


def test_cal_draws_its_picture_of_a_part_at_random() -> None:
    labels = [f"part-{i // 4}" for i in range(400)]
    which = Counter(i % 4 for seed in range(20) for i in grouped_split(labels, "", seed, 19).cal)
    assert sum(which.values()) == 20 * 50
    assert all(180 < count < 320 for count in which.values())


def test_the_seed_decides_alone() -> None:
    assert asdict(singles(60, seed=1)) == asdict(singles(60, seed=1))
    assert singles(60, seed=1).cal != singles(60, seed=2).cal
    often = Counter(i for seed in range(300) for i in singles(60, seed).cal)
    assert len(often) == 60  # every image calibrates now and then, whatever its place in the list


def test_a_split_survives_json() -> None:
    split = singles(40)
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
    assert len(grouped_split([f"part-{i % 21}" for i in range(210)], "", 0, 19).cal) == 19
    with pytest.raises(TooFewImagesError, match=r"0 reference images in 0 groups"):
        grouped_split([], "", 0, 19)


# --- Grouping

FILES = ["lot1/p07_a.png", "lot1/p07_b.png", "lot2/p07_a.png"]


def test_without_a_rule_every_image_is_its_own_group() -> None:
    assert group_labels(FILES, None) == (FILES, "every image its own group")


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        (r"p\d+", ["p07", "p07", "p07"]),
        (r"(lot\d)/(p\d+)", ["lot1|p07", "lot1|p07", "lot2|p07"]),
        (r"_(a)|_(b)", ["a|", "|b", "a|"]),
        (r"^[^/]+", ["lot1", "lot1", "lot2"]),
    ],
)
def test_a_pattern_names_the_part_by_its_groups_or_its_match(rule: str, labels: list[str]) -> None:
    assert group_labels(FILES, rule) == (labels, f"by the pattern {rule}")


def test_a_pattern_must_match_every_name_and_be_a_pattern() -> None:
    with pytest.raises(ConfigError, match=r"does not match lot2/p07_a\.png: give a pattern"):
        group_labels(FILES, "lot1")
    with pytest.raises(ConfigError, match=r"CSV file or a regular expression, got '\(': missing \)"):
        group_labels(FILES, "(")


def table(tmp_path: Path, text: str) -> str:
    path = tmp_path / "groups.csv"
    path.write_bytes(text.encode())
    return str(path)


def test_a_table_names_files_by_path_or_name(tmp_path: Path) -> None:
    rule = table(tmp_path, "\ufefffile,group\r\nlot1/p07_a.png,seven\r\np07_b.png,seven\r\nlot2/p07_a.png,other\r\n")
    assert group_labels(FILES, rule) == (["seven", "seven", "other"], "by the table groups.csv")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("file,group\nlot1/p07_a.png,1\nlot2/p07_a.png,1\n", r"1 have none, the first is lot1/p07_b\.png"),
        ("file,group\nlot1/p07_a.png,1\nlot1/p07_b.png\nlot2/p07_a.png,1\n", r"1 have none, the first is lot1/p07_b"),
        ("name;part\nlot1/p07_a.png;1\n", r"3 have none, the first is lot1/p07_a\.png"),
        ("", "3 have none"),
    ],
)
def test_a_table_must_cover_every_file(tmp_path: Path, text: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"groups\.csv needs the columns file,group .*; {missing}"):
        group_labels(FILES, table(tmp_path, text))


def test_a_table_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read: .*No such file"):
        group_labels(FILES, str(tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes("file,group\nMüller.png,1\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.csv cannot be read: 'utf-8' codec"):
        group_labels(FILES, str(tmp_path / "latin.csv"))


def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("file,group\na.png,1\nb.png,2\na.png,1\n")
    assert group_labels(["a.png", "b.png"], str(table))[0] == ["1", "2"]  # saying it twice is no contradiction
    table.write_text("file,group\na.png,1\nb.png,2\na.png,3\n")
    with pytest.raises(ConfigError, match=r"groups\.csv puts a\.png into two groups"):
        group_labels(["a.png", "b.png"], str(table))
