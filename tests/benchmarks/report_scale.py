"""What a PDF report costs by the page: ``explainvad render RUN --formats pdf`` of lots with 10 to 5,000 flagged images.

    python tests/benchmarks/report_scale.py [--images 10 100 1000 5000] [--single 1000] [--folder FOLDER]

The runs are fabricated from twenty drawn images, with a real ledger. CPU seconds are those of the command and
of all its workers, user and system; memory is that of the largest process. ``--single`` names the sizes that are also
rendered as one document by one worker and by WeasyPrint as it comes, which is what parts and engine are measured
against.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pikepdf

REPORT_TESTS = Path(__file__).resolve().parents[1] / "report"
sys.path.insert(0, str(REPORT_TESTS))

from fabricated_lot import SMALL_P, Builder, statistics_of, verdict_of  # noqa: E402
from fabricated_model import LOT, MODEL, PROVENANCE  # noqa: E402

from explainvad.record.events import RunStart  # noqa: E402
from explainvad.record.run import Run  # noqa: E402
from explainvad.types import Decision  # noqa: E402

_DRAWN = 20
# The command, or the same with all images in one part; then what it took
_CHILD = """
import sys
from pathlib import Path
from explainvad.report import pdf_report
if sys.argv[2] == "single":
    from explainvad.report import pdf_pool
    as_it_comes = "from explainvad.report import pdf_engine as e, pdf_worker as w; e.KNOWN_VERSION = None; "
    main = "import sys; from pathlib import Path; w.main(Path(sys.argv[1]), int(sys.argv[2]))"
    pdf_pool.command = lambda _, *given: [sys.executable, "-c", as_it_comes + main, *map(str, given)]
    pdf_report.IMAGES_PER_PART = 10**9
    pdf_report.PdfRenderer.__init__.__defaults__ = (60.0, 1, 10**9, pdf_report.Limits(1 << 40, 1 << 40))
from explainvad.cli import app
app(["render", sys.argv[1], "--formats", "pdf"], standalone_mode=False)
assert "torch" not in sys.modules, "rendering needs no torch"
"""


def fabricate(folder: Path, n: int) -> None:
    """Write a finished run of ``n`` rejected images, one to three regions each."""
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Builder(Path(scratch) / "drawn")
        places = [(250, 130, 20, 9), (400, 300, 12, 12), (330, 110, 9, 16)]
        for k in range(_DRAWN):
            drawn.inspected("x.png", verdict_of(Decision.REJECT, 3 + k / 10, 1 / 96, SMALL_P), places[: 1 + k % 3])
        files = tuple((f"img-{k:05d}", f"tray {k // 50}/flange_{k:05d}.png") for k in range(1, n + 1))
        start = RunStart(
            LOT, files, MODEL, dict(PROVENANCE.config), PROVENANCE.software, PROVENANCE.versions, PROVENANCE.platform
        )
        with Run.open(folder, start) as run:
            for k, (image_id, file) in enumerate(files):
                source = drawn.records[k % _DRAWN]
                named = {
                    name.replace(source.image_id, image_id): (drawn.run_dir / name).read_bytes()
                    for name in source.artifacts
                }
                run.add(replace(source, image_id=image_id, file=file, sha256=f"{k:064x}", artifacts={}), named)
            run.finish(replace(statistics_of(list(run.done.values())), drift=None, chart=None))


def measure(run_dir: Path, how: str) -> dict[str, float]:
    """Render in a process of its own; CPU and wall seconds, the largest process in MB, pages and MB of the file."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    probe = [sys.executable, __file__, "--child", str(run_dir), how]
    memory = json.loads(subprocess.run(probe, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pikepdf.open(run_dir / "report.pdf") as pdf:
        pages = len(pdf.pages)
    return {
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall": time.perf_counter() - began,
        "largest": memory / 1024,
        "pages": pages,
        "size": (run_dir / "report.pdf").stat().st_size / 1e6,
    }


def child(run_dir: str, how: str) -> None:
    """Run the command and print the memory, in KiB, of the largest process it had."""
    subprocess.run([sys.executable, "-c", _CHILD, run_dir, how], check=True, stdout=subprocess.DEVNULL)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def main() -> None:
    """Measure and print one row a size."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--single", type=int, nargs="*", default=[1000])
    parser.add_argument("--folder", type=Path, help="where the runs are kept; a temporary one when not given")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="explainvad-scale-"))
    print(
        f"{'images':>7} {'how':<7} {'CPU s':>7} {'ms/page':>8} {'wall s':>7} {'largest MB':>11} {'pages':>6} {'MB':>7}"
    )
    for n in options.images:
        run_dir = folder / f"run-{n}"
        if not run_dir.exists():
            fabricate(run_dir, n)
        for how in ("parts", *(("single",) if n in options.single else ())):
            m = measure(run_dir, how)
            print(
                f"{n:>7} {how:<7} {m['cpu']:>7.1f} {1000 * m['cpu'] / m['pages']:>8.0f} {m['wall']:>7.1f} "
                f"{m['largest']:>11.0f} {m['pages']:>6.0f} {m['size']:>7.1f}",
                flush=True,
            )
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
