"""A small finished run that no detector made, with files of every kind: pictures, maps, reports in all formats."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_factories import make_record, make_start, make_statistics

from explainvad.record.run import Run
from explainvad.report import html_report
from explainvad.report.render import FILES
from explainvad.reporting import load_report
from explainvad.types import LotInfo

N_FILES = 8  # two of each decision


def flagged_run(run_dir: Path) -> Path:
    """Eight files, of which four are flagged and have pictures; not rendered."""
    start = make_start(N_FILES, lot=LotInfo("whole", operator="A. Nobody"))
    with Run.open(run_dir, start) as run:
        for index, (image_id, _) in enumerate(start.files):
            record = make_record(start, index)
            run.add(record, pictures(image_id, index) if record.flagged else {})
        run.finish(make_statistics(run.done.values()))
    return run_dir


def rendered_in_all_formats(run_dir: Path) -> Path:
    """Write every format into the run, its HTML report on several pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_report, "IMAGES_A_PAGE", 2)
        load_report(run_dir).render(formats=list(FILES))
    return run_dir


def pictures(image_id: str, seed: int) -> dict[str, bytes]:
    """What a run keeps of a flagged image of 8 x 6 px."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 1 << 16, (6, 8), dtype=np.uint16)
    regions = np.zeros((6, 8), np.uint8)
    regions[2:4, 3:7] = 1
    return {
        f"evidence/{image_id}.jpg": encoded(photo(seed), "JPEG"),
        f"evidence/{image_id}-reference.jpg": encoded(photo(seed + 100), "JPEG"),
        f"maps/{image_id}.png": encoded(Image.fromarray(grey), "PNG"),
        f"masks/{image_id}.png": encoded(Image.fromarray(regions), "PNG"),
    }


def photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()
