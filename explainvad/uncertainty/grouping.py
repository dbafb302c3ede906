"""Rules that tell which images belong together: pictures of one part, or of one calibration cell."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from explainvad.errors import ConfigError


def group_labels(files: Sequence[str], rule: str | None) -> tuple[list[str], str]:
    """The group of each file, and the rule in words.

    ``rule`` is a CSV file with the columns ``file,group``, or a regular expression that is searched in the file's
    path and whose groups (or whole match) name the part. None: every file is its own group.
    Raises ConfigError when the rule does not cover a file.
    """
    if rule is None:
        return list(files), "every image its own group"
    labels = rule_labels(files, rule)
    missing = [file for file, label in zip(files, labels, strict=True) if not label]
    if not missing:
        return [label or "" for label in labels], rule_in_words(rule)
    if is_table(rule):
        raise ConfigError(
            f"the group table {Path(rule).name} needs the columns file,group and a row for every image; "
            f"{len(missing)} have none, the first is {missing[0]}"
        )
    raise ConfigError(f"--group {rule!r} does not match {missing[0]}: give a pattern that finds a part in every name")


def rule_labels(files: Sequence[str], rule: str) -> list[str | None]:
    """What a rule, as in :func:`group_labels`, says of each file; None where it says nothing."""
    if is_table(rule):
        table = _read_table(rule)
        return [table.get(file) or table.get(Path(file).name) or None for file in files]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ConfigError(f"expected a CSV file or a regular expression, got {rule!r}: {error}") from error
    matches = [pattern.search(file) for file in files]
    return [m and ("|".join(g or "" for g in m.groups()) if m.groups() else m.group()) for m in matches]


def is_table(rule: str) -> bool:
    """Whether a rule is a CSV file."""
    return Path(rule).suffix.lower() == ".csv"


def rule_in_words(rule: str) -> str:
    """For the report."""
    return f"by the table {Path(rule).name}" if is_table(rule) else f"by the pattern {rule}"


def _read_table(rule: str) -> dict[str, str]:
    try:
        with Path(rule).open(newline="", encoding="utf-8-sig") as stream:
            rows = {(row.get("file", ""), row.get("group", "")) for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the group table {rule} cannot be read: {error}") from error
    table = dict(rows)
    if len(table) < len(rows):
        twice = sorted(file for file, group in rows if table[file] != group)[0]
        raise ConfigError(f"the group table {Path(rule).name} puts {twice} into two groups: give it one")
    return table
