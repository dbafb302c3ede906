"""Trains the autoencoders of the identity-mapping stress test on generated trays; half an hour on one core.

.venv/bin/python tests/benchmarks/identity_mapping.py notebooks/data/identity_mapping.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from explainvad.demo.logical import STRUCTURAL, make_logical
from explainvad.evaluation.experiments import ExperimentData
from explainvad.evaluation.identity_mapping import GRID, LONGER, REMEDIES, StressTest

SEED = 1


def main() -> None:
    """Measure the grid and the remedies, and write the figures that the notebook reads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        root = make_logical(Path(folder) / "trays", SEED, n_train=120, n_good=40, n_each=14)
        data = ExperimentData.load(root)
        StressTest.measure(data, [*GRID, *REMEDIES, *LONGER], tuple(STRUCTURAL)).save(arguments.out)


if __name__ == "__main__":
    main()
