"""Times of the embedded profile on 200 reference images of 400 x 300 px: ``make bench``. Printed, never asserted."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import torch

from explainvad import Inspector
from explainvad.demo import make_demo
from explainvad.lot import read_image, scan


def main() -> None:
    """Make 200 pictures, fit on them, score and judge 40 of them one by one, write the demo lot's report."""
    with tempfile.TemporaryDirectory() as folder:
        demo = make_demo(Path(folder) / "demo", seed=1, n_reference=200)
        started = time.perf_counter()
        inspector = Inspector.fit(demo.reference)
        fitted = time.perf_counter() - started
        inspector.save(Path(folder) / "model.evad")
        images = [read_image(file) for file in scan(demo.reference)[:40]]
        rates = {}
        for name, work in (("score", inspector.ensemble.score), ("judge", inspector.inspect)):
            work(images[0])
            started = time.perf_counter()
            for image in images:
                work(image)
            rates[name] = len(images) / (time.perf_counter() - started)
        started = time.perf_counter()
        report = Inspector.load(Path(folder) / "model.evad").analyze(demo.lot, Path(folder) / "run")
        analyzed = time.perf_counter() - started
        started = time.perf_counter()
        report.render()
        rendered = time.perf_counter() - started
    print(f"threads                          {torch.get_num_threads()}")
    print(f"fit, 200 images of 400 x 300 px  {fitted:8.1f} s")
    print(f"score                            {rates['score']:8.1f} images/s")
    print(f"score, verdict, regions, words   {rates['judge']:8.1f} images/s")
    print(f"analyze, demo lot of 30 files    {analyzed:8.1f} s")
    print(f"render, all formats              {rendered:8.1f} s")
    print(f"largest resident size            {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MB")


if __name__ == "__main__":
    main()
