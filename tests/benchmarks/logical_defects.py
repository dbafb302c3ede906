"""How far a profile sees broken rules, not only broken surfaces: generated logical defects beside scratches.

    python tests/benchmarks/logical_defects.py [--out FOLDER] [--profile embedded]

The pictures are generated (:mod:`explainvad.demo.logical`), in MVTec LOCO AD's layout, and read, fitted and measured
as that data set is. They stand for themselves: figures on them say nothing of figures on MVTec LOCO AD.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from explainvad.config import InspectionConfig
from explainvad.demo.logical import make_logical
from explainvad.evaluation.evaluate import evaluate_dataset


def main() -> None:
    """Make the pictures, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where pictures and results stay; nowhere when not given")
    parser.add_argument("--profile", default="embedded")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = asked.out or Path(scratch)
        data = make_logical(out / "data")
        config = InspectionConfig(profile=asked.profile)
        print(evaluate_dataset(data, out / "results", config=config).table())


if __name__ == "__main__":
    main()
