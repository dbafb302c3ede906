"""Worker processes: what is lost is tried once more, what is wrong is named, and nothing outlives its limits."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated_lot import SMALL_P, Builder, many_flagged, verdict_of

from explainvad.errors import IntegrityError, RenderError
from explainvad.report import pdf_pool
from explainvad.report.branding import Branding
from explainvad.report.context import flagged_images
from explainvad.report.image_page import shown_records
from explainvad.report.pdf_parts import COMMON, REPORT, Common, Numbering, Part, PartJob, without_findings, written
from explainvad.report.pdf_pool import Job, Limits, WorkerPool
from explainvad.report.pdf_report import PdfRenderer
from explainvad.report.render import ReportRenderer
from explainvad.types import Decision, LotReport


@pytest.fixture(scope="module")
def small_lot(tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    """Two flagged images."""
    return many_flagged(tmp_path_factory.mktemp("small") / "run", 2)


@pytest.fixture
def job(small_lot: LotReport, tmp_path: Path) -> Job:
    """The pages of both, ready to be rendered in a folder."""
    shown = shown_records(small_lot, "flagged")
    common = Common(
        small_lot.run_dir, ("img-00001", "img-00002"), flagged_images(small_lot), False, 2, (), (), Branding()
    )
    part = Part("images", "the pages of img-00001 to img-00002", shown, 0, expected=2)
    (tmp_path / COMMON).write_bytes(written(common))
    (tmp_path / REPORT).write_bytes(without_findings(small_lot))
    (tmp_path / "job.json").write_bytes(written(PartJob(part, 1, Numbering(4, 9, {}), False, tmp_path / "part.pdf")))
    return Job(tmp_path / "job.json", part.words, 60)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[pdf_pool._Worker]]:
    """Every worker that a pool starts."""
    started: list[pdf_pool._Worker] = []
    init = pdf_pool._Worker.__init__

    def noted(worker: pdf_pool._Worker, *arguments: object) -> None:
        init(worker, *arguments)  # type: ignore[arg-type]
        started.append(worker)

    monkeypatch.setattr(pdf_pool._Worker, "__init__", noted)
    yield started
    assert all(worker._process.poll() is not None for worker in started), "no worker outlives its pool"


def kill(workers: list[pdf_pool._Worker], times: int) -> None:
    """Kill the first ``times`` workers as soon as they are there."""
    for k in range(times):
        while len(workers) <= k:
            time.sleep(0.01)
        os.kill(workers[k]._process.pid, signal.SIGKILL)


def test_killed_worker_is_replaced(job: Job, workers: list[pdf_pool._Worker], tmp_path: Path) -> None:
    killer = threading.Thread(target=kill, args=(workers, 1))
    killer.start()
    with WorkerPool(tmp_path, 1, 0) as pool:
        (answer,) = pool.run([job])
    killer.join()
    assert answer["pages"] == 2 and list(answer["anchors"]) == ["img-00001", "img-00002"]
    assert len(workers) == 2


def test_worker_that_is_killed_twice_is_an_error_that_names_its_images(
    job: Job, workers: list[pdf_pool._Worker], tmp_path: Path
) -> None:
    killer = threading.Thread(target=kill, args=(workers, 2))
    killer.start()
    expected = r"lost twice at the pages of img-00001 to img-00002 \(killed by signal 9; then killed by signal 9\)"
    with WorkerPool(tmp_path, 1, 0) as pool, pytest.raises(RenderError, match=expected):
        pool.run([job])
    killer.join()
    assert len(workers) == 2


def test_late_worker_is_stopped(job: Job, workers: list[pdf_pool._Worker], tmp_path: Path) -> None:
    with WorkerPool(tmp_path, 1, 0) as pool, pytest.raises(RenderError, match="not ready after 0 s; then not ready"):
        pool.run([replace(job, seconds=0.05)])


def test_memory_is_capped(job: Job, workers: list[pdf_pool._Worker], tmp_path: Path) -> None:
    limits = Limits(data_bytes=60 << 20)
    with WorkerPool(tmp_path, 1, 0, limits) as pool, pytest.raises(RenderError, match="img-00001 to img-00002"):
        pool.run([job])
    assert len(workers) == 2


def test_worker_is_kept_until_it_has_grown(job: Job, workers: list[pdf_pool._Worker], tmp_path: Path) -> None:
    ballast = b"x" * Limits().recycle_bytes  # of this process, which must not count
    with WorkerPool(tmp_path, 1, 0) as pool:
        pool.run([job, job])
        assert len(workers) == 1
    assert ballast
    with WorkerPool(tmp_path, 1, 0, Limits(recycle_bytes=1)) as pool:
        pool.run([job, job])
    assert len(workers) == 3


def test_fault_of_the_record_is_final(tmp_path: Path, workers: list[pdf_pool._Worker]) -> None:
    b = Builder(tmp_path / "run")
    b.inspected("a.png", verdict_of(Decision.REJECT, 3.0, 1 / 96, SMALL_P), [(250, 130, 20, 9)])
    report = b.report()
    path = tmp_path / "run" / "evidence" / "img-00001.jpg"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"evidence/img-00001\.jpg was altered"):
        ReportRenderer(PdfRenderer(workers=1)).render(report, tmp_path / "out", ["pdf", "csv"])
    assert len(workers) == 1 and not (tmp_path / "out").exists()


def test_other_formats_are_written_where_the_pdf_fails(small_lot: LotReport, tmp_path: Path) -> None:
    renderer = ReportRenderer(PdfRenderer(workers=1, limits=Limits(data_bytes=60 << 20)))
    with pytest.raises(RenderError, match="lost twice"):
        renderer.render(small_lot, tmp_path, ["pdf", "csv", "json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "results.csv"]
