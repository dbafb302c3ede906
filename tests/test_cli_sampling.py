"""``explainvad sampling-plan``: the plan, its operating characteristic, and what it refuses."""

from __future__ import annotations

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from explainvad.cli_sampling import sampling_plan_command
from explainvad.errors import UsageError

app = typer.Typer()
app.command("sampling-plan")(sampling_plan_command)


def sampling_plan(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def rows(done: Result) -> dict[str, list[str]]:
    """The lines of the table: label to the words after it."""
    assert done.exit_code == 0, done.output
    return {line[:36].strip(): line[36:].split() for line in done.output.splitlines() if len(line) > 36}


def test_it_prints_the_plan_and_its_operating_characteristic() -> None:
    done = sampling_plan("--lot-size", 2000, "--aql", 1.0)
    table = rows(done)
    head = done.output.splitlines()[:5]
    assert head == [
        "plan    MIL-STD-105E, single, normal inspection, level II, AQL 1 %, lot of 2000",
        "letter  K",
        "sample  125 units",
        "accept  with up to 3 defective (Ac)",
        "reject  with 4 or more (Re)",
    ]
    assert table["P(accept) with 0 % defective"] == ["1.000"]
    assert table["P(accept) with 1 % defective"] == ["0.963"]
    assert table["P(accept) with 5 % defective"] == ["0.124"]
    assert table["P(reject) at the AQL"] == ["0.037"]
    assert table["% defective where P(accept) = 0.1"] == ["5.27"]
    assert "presume inspection without error" in done.output


def test_inspection_error_is_set_beside_inspection_without() -> None:
    done = sampling_plan("--lot-size", 2000, "--aql", 1.0, "--sensitivity", 0.9, "--specificity", 0.99)
    table = rows(done)
    assert table["sensitivity, specificity"] == ["1,", "1", "0.9,", "0.99"]
    # Called defective: 0.01 * 0.9 + 0.99 * 0.01 = 0.0189
    assert table["P(accept) with 1 % defective"] == ["0.963", "0.788"]
    assert table["P(reject) at the AQL"] == ["0.037", "0.212"]
    assert "misses let worse lots pass, false alarms reject good ones" in done.output
    assert "presume" not in done.output


def test_it_says_when_no_lot_is_bad_enough_to_be_rejected_and_none_good_enough() -> None:
    blind = sampling_plan("--lot-size", 2000, "--aql", 1.0, "--sensitivity", 0.03)
    nervous = sampling_plan("--lot-size", 2000, "--aql", 1.0, "--specificity", 0.9)
    assert rows(blind)["% defective where P(accept) = 0.1"] == ["5.27", "none"]
    assert rows(nervous)["% defective where P(accept) = 0.1"] == ["5.27", "0"]


def test_the_level_changes_the_sample_and_a_small_lot_is_inspected_whole() -> None:
    assert "letter  H\nsample  50 units\n" in sampling_plan("--lot-size", 2000, "--aql", 1.0, "--level", "I").output
    done = sampling_plan("--lot-size", 20, "--aql", 0.65, "--level", "III")
    assert "letter  F\nsample  20 units, the whole lot\n" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lot-size", 100, "--aql", 1.2), "use 1 % or 1.5 %"),
        (("--lot-size", 1, "--aql", 1.0), "2 units or more, got 1"),
        (("--lot-size", 100, "--aql", 1.0, "--level", "S-1"), "got S-1"),
    ],
)
def test_what_the_standard_lacks_is_refused(arguments: tuple[object, ...], message: str) -> None:
    done = sampling_plan(*arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert done.output == ""


@pytest.mark.parametrize("option", ["--sensitivity", "--specificity"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_what_is_no_share_is_refused(option: str, value: float) -> None:
    done = sampling_plan("--lot-size", 100, "--aql", 1.0, option, value)
    assert done.exit_code == 2
    assert option in done.output
