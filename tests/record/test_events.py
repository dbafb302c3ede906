from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_factories import continue_run, finished_run, first_problem, forge, make_start, read_members, render

from explainvad.errors import IntegrityError
from explainvad.record.finished import read_report
from explainvad.record.run import Run

Members = list[dict[str, Any]]


@pytest.fixture
def resumed(tmp_path: Path) -> Path:
    """run_started, fallback, image, image, run_resumed, image, image, run_finished, report_rendered."""
    start = make_start()
    for until in (2, None):
        with Run.open(tmp_path, start) as run:
            continue_run(run, start, until)
    with Run.reopen(tmp_path) as run:
        run.note_rendered(render(tmp_path))
    assert len(read_members(tmp_path)) == 9
    return tmp_path


def move(members: Members, old: int, new: int) -> None:
    members.insert(new - 1, members.pop(old - 1))


def repeat(members: Members, old: int, new: int) -> None:
    members.insert(new - 1, copy.deepcopy(members[old - 1]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: move(m, 1, 2), "line 1: fallback: line 1 must be run_started"),
        (lambda m: repeat(m, 1, 3), "line 3: run_started: line 1 must be run_started, and no other"),
        (lambda m: move(m, 9, 3), "line 3: report_rendered: out of place before run_finished"),
        (lambda m: move(m, 2, 7), None),
        (lambda m: move(m, 2, 9), "line 9: fallback: out of place behind run_finished"),
        (lambda m: move(m, 5, 9), "line 9: run_resumed: out of place behind run_finished"),
        (lambda m: move(m, 7, 8), "line 7: run_finished: 1 files have no image line, img-00004"),
        (lambda m: repeat(m, 3, 4), "line 4: image: img-00001 is recorded already"),
        (lambda m: repeat(m, 8, 9), "line 9: run_finished: out of place behind run_finished"),
        (lambda m: m[4].update(event="pause"), "line 5: pause: unknown event"),
        (lambda m: m[4]["body"].update(done="many"), "line 5: run_resumed: done: Input should be a valid integer"),
        (lambda m: m[4]["body"].pop("platform"), "line 5: run_resumed: platform: "),
        (lambda m: m[1].update(body={}), "line 2: fallback: 'text'"),
        (lambda m: m[0]["body"].pop("files"), "line 1: run_started: 'files'"),
        (lambda m: m[0]["body"].update(files=[1]), "line 1: run_started: "),
        (lambda m: m[2]["body"].update(file="other"), "line 3: image: no file 'other' with the id 'img-00001'"),
        (lambda m: m[2]["body"]["verdict"].update(p_value=0), "line 3: image: verdict: Value error, p_value must lie"),
        (lambda m: m[3]["body"]["findings"][0]["region"]["mask"]["counts"].append(1), "run lengths must add up"),
        (lambda m: m[7]["body"]["counts"].update(REJECT=0, ACCEPT=1), "line 8: run_finished: the statistics do not"),
        (lambda m: m[8]["body"].update(files=["a"]), "line 9: report_rendered: "),
    ],
)
def test_lines_must_make_sense_together(resumed: Path, edit: Callable[[Members], object], message: str | None) -> None:
    members = read_members(resumed)
    edit(members)
    forge(resumed, members)
    if message is None:
        assert len(read_report(resumed).records) == 4
    else:
        assert message in first_problem(resumed)
        with pytest.raises(IntegrityError) as caught:
            read_report(resumed)
        assert message in str(caught.value)


def test_records_come_in_the_order_of_the_lot(tmp_path: Path) -> None:
    members = read_members(finished_run(tmp_path))
    move(members, 3, 6)
    forge(tmp_path, members)
    assert [record.image_id for record in read_report(tmp_path).records] == [f"img-0000{i}" for i in (1, 2, 3, 4)]
