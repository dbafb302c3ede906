"""What the embedded backbone owes to training, attention, convolution and each family of surfaces.

    python tests/benchmarks/backbone_ablation.py train OUT            trains every variant, equal small budgets
    python tests/benchmarks/backbone_ablation.py table OUT TILES      measures them, writes OUT/ablation.md

TILES is a folder of the public magnetic tiles (good/, blowhole/, break/, fray/, ground_truth/); see ``tiles.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from magnetic_tile import Tiles, measure_bank

from explainvad.detection.backbone.embedded import EmbeddedBackbone, load_shipped, network_from
from explainvad.detection.backbone.network import HybridBackbone
from explainvad.detection.synthesis.items import FAMILIES
from explainvad.training.config import ArchitectureConfig, TrainingConfig
from explainvad.training.holdout import holdout_scores
from explainvad.training.loop import train_backbone

BUDGET = TrainingConfig(steps=250, items=6, normal=2, test=2, workers=0, report_every=250)
HOLDOUT_ITEMS = 12  # of each family


def variants() -> dict[str, TrainingConfig]:
    """Name -> what is trained."""
    kinds = {
        "hybrid": ArchitectureConfig(),
        "CNN only": ArchitectureConfig(attention_blocks=0),
        "attention only": ArchitectureConfig(conv_blocks=0),
    }
    runs = {name: BUDGET.model_copy(update={"architecture": kind}) for name, kind in kinds.items()}
    for family in FAMILIES:
        others = tuple(f for f in FAMILIES if f != family)
        runs[f"hybrid without {family}"] = BUDGET.model_copy(update={"families": others})
    return runs


def train(out: Path) -> None:
    """Train what is not there yet."""
    for name, config in variants().items():
        folder = out / name.replace(" ", "_")
        if not (folder / "embedded.safetensors").exists():
            train_backbone(config, folder)
            print("trained", name, flush=True)


def load(folder: Path) -> HybridBackbone:
    """The network that a training run left."""
    manifest = json.loads((folder / "embedded.json").read_text("utf-8"))
    return network_from((folder / "embedded.safetensors").read_bytes(), manifest)


def table(out: Path, tiles: Path) -> None:
    """Measure all variants and the shipped weights; one Markdown table."""
    shipped, _ = load_shipped()
    torch.manual_seed(0)
    networks = {"untrained": HybridBackbone(shipped.architecture).eval(), "shipped": shipped}
    networks |= {name: load(out / name.replace(" ", "_")) for name in variants()}
    data = Tiles.read(tiles)
    lines = [
        "| variant | hold-outs: cell AUROC | crop AUROC | left-out family: cell AUROC (hybrid's) "
        "| tiles: image AUROC | AUPRO(0.3) |",
        "|---|---|---|---|---|---|",
    ]
    reference: dict[str, float] = {}
    for name, network in networks.items():
        scores = holdout_scores(network, tuple(FAMILIES), HOLDOUT_ITEMS, BUDGET.side)
        pooled = {family: score.pooled for family, score in scores.items()}
        if name == "hybrid":
            reference = pooled
        left_out = name.removeprefix("hybrid without ")
        beside = f"{pooled[left_out]:.3f} ({reference[left_out]:.3f})" if left_out in pooled else ""
        result = measure_bank(EmbeddedBackbone(network, 448, name), data)
        lines.append(
            f"| {name} | {np.mean(list(pooled.values())):.3f} | {np.mean([s.crop for s in scores.values()]):.3f} "
            f"| {beside} | {result.auroc.estimate:.3f} | {result.aupro:.3f} |"
        )
        print(lines[-1], flush=True)
    (out / "ablation.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]))
    else:
        table(Path(sys.argv[2]), Path(sys.argv[3]))
