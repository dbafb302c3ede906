"""A rule names the part of every file, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from explainvad.errors import ConfigError
from explainvad.uncertainty.grouping import group_labels, is_table, rule_in_words, rule_labels

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


# --- Rules that need not cover every file


def test_what_a_rule_does_not_cover_has_no_label(tmp_path: Path) -> None:
    assert rule_labels(FILES, "lot1/(p07)") == ["p07", "p07", None]
    assert rule_labels(FILES, table(tmp_path, "file,group\np07_b.png,7\nlot2/p07_a.png,\n")) == [None, "7", None]
    assert rule_labels([], "(x)") == []


def test_the_path_in_a_table_comes_before_the_name(tmp_path: Path) -> None:
    rule = table(tmp_path, "file,group\np07_a.png,any\nlot2/p07_a.png,second\n")
    assert rule_labels(FILES, rule) == ["any", None, "second"]


def test_a_match_without_text_names_no_part() -> None:
    with pytest.raises(ConfigError, match=r"does not match lot1/p07_a\.png"):
        group_labels(FILES, "x*")


@pytest.mark.parametrize(
    ("rule", "of_a_table", "words"),
    [
        ("groups.csv", True, "by the table groups.csv"),
        ("/some/where/Groups.CSV", True, "by the table Groups.CSV"),
        (r"(p\d+)_", False, r"by the pattern (p\d+)_"),
        (r"\.csv$", False, r"by the pattern \.csv$"),
    ],
)
def test_a_table_is_told_from_a_pattern_by_its_suffix(rule: str, of_a_table: bool, words: str) -> None:
    assert is_table(rule) is of_a_table
    assert rule_in_words(rule) == words
