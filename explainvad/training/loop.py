"""The training loop: deterministic from its seed, resumable, on CPU or GPU."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from explainvad.detection.backbone.network import HybridBackbone
from explainvad.detection.backbone.objective import NearestNeighbourLoss
from explainvad.detection.backbone.optimisation import (
    make_optimiser,
    set_learning_rate,
    training_step,
    warm_cosine,
)
from explainvad.detection.synthesis.items import GeneratedItems, Item
from explainvad.errors import RunConflictError, StorageError, UsageError
from explainvad.training.config import TrainingConfig
from explainvad.training.holdout import HoldoutScore, holdout_scores
from explainvad.types import Progress

WARM_UP = 0.03  # share of the steps in which the learning rate rises
HOLDOUT_ITEMS = 12  # of each family, at every report
CHECKPOINT, LOG, SETTINGS, WEIGHTS, MANIFEST, PLOT = (
    "checkpoint.pt",
    "log.csv",
    "config.json",
    "embedded.safetensors",
    "embedded.json",
    "training.png",
)


def train_backbone(config: TrainingConfig, out: Path, progress: Progress | None = None) -> Path:
    """Train, and write weights (fp16 safetensors), their manifest, a log and a plot into ``out``.

    A run that was cut short goes on from its last checkpoint and ends with the same weights. Raises RunConflictError
    when ``out`` holds a run with other settings, UsageError for a GPU that is not there, StorageError.
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f'device {config.device} was asked for, but no GPU is here: set device = "cpu"')
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        _claim(out, config)
        return _train(config, out, progress)
    except OSError as error:
        raise StorageError(f"the training run could not be written to {out}: {error.strerror or error}") from error
    finally:
        torch.set_num_threads(threads)


def _claim(out: Path, config: TrainingConfig) -> None:
    """Make ``out`` the folder of this run, or find that it is already."""
    # where and how fast images are generated does not matter to the result
    settings = config.model_dump(mode="json", exclude={"workers"})
    path = out / SETTINGS
    if path.exists() and json.loads(path.read_text("utf-8")) != settings:
        raise RunConflictError(f"{out} holds a training run with other settings: name another --out, or delete it")
    out.mkdir(parents=True, exist_ok=True)
    _write(path, (json.dumps(settings, indent=1) + "\n").encode())


def _train(config: TrainingConfig, out: Path, progress: Progress | None) -> Path:
    with torch.random.fork_rng(devices=[]):  # initialisation draws on the global generator; the caller's is kept
        torch.manual_seed(config.seed)
        network = HybridBackbone(config.architecture.build())
    network.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = NearestNeighbourLoss().to(config.device)
    optimiser = make_optimiser(network, objective, config.learning_rate, config.weight_decay)
    first = _resume(out, network, objective, optimiser)
    mean_loss, seconds = 0.0, time.perf_counter()
    for step, (normal, test, mask) in enumerate(_batches(config, first), start=first):
        set_learning_rate(optimiser, config.learning_rate * warm_cosine(step / config.steps, WARM_UP))
        loss = training_step(network, objective, optimiser, normal, test, mask, config.precision)
        mean_loss += (loss - mean_loss) / (step % config.report_every + 1)  # since the last report
        done = step + 1
        if progress:
            progress("training the backbone", done, config.steps)
        if done % config.report_every == 0 or done == config.steps:
            scores = holdout_scores(network.float(), config.families, HOLDOUT_ITEMS, config.side)
            _log(out / LOG, done, mean_loss, (time.perf_counter() - seconds) / (done - first), scores)
            _checkpoint(out, done, network, objective, optimiser)
            _plot(out)
    return _finish(config, out, network)


def _batches(config: TrainingConfig, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches from step ``first`` on; which items a step sees depends on its number alone."""
    total = config.steps * config.items
    items = GeneratedItems(
        config.seed, total, config.families, normal=config.normal, test=config.test, side=config.side
    )
    loader = DataLoader(
        Subset(items, range(first * config.items, total)),
        batch_size=config.items,
        num_workers=config.workers,
        collate_fn=_stack,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if config.workers else None,
        generator=torch.Generator(),  # it draws a seed for its workers, which the caller's generator must not miss
    )
    for batch in loader:
        yield tuple(tensor.to(config.device, non_blocking=True) for tensor in batch)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _stack(items: list[Item]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.stack([item.normal for item in items]),
        torch.stack([item.test for item in items]),
        torch.stack([item.mask for item in items]),
    )


# -- what is kept ---------------------------------------------------------------------------------------


def _resume(
    out: Path, network: HybridBackbone, objective: NearestNeighbourLoss, optimiser: torch.optim.Optimizer
) -> int:
    """Take up the last checkpoint, if there is one; returns the number of steps done."""
    if not (out / CHECKPOINT).exists():
        (out / LOG).unlink(missing_ok=True)
        return 0
    state = torch.load(out / CHECKPOINT, weights_only=True)
    network.load_state_dict(state["network"])
    objective.load_state_dict(state["objective"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _checkpoint(
    out: Path, step: int, network: HybridBackbone, objective: NearestNeighbourLoss, optimiser: torch.optim.Optimizer
) -> None:
    scratch = out / f"{CHECKPOINT}.new"
    torch.save(
        {
            "step": step,
            "network": network.state_dict(),
            "objective": objective.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
        scratch,
    )
    scratch.replace(out / CHECKPOINT)


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_bytes(content)
    scratch.replace(path)


def _log(path: Path, step: int, loss: float, seconds: float, scores: dict[str, HoldoutScore]) -> None:
    """Append a line; one left by a run that died after it and before its checkpoint is written again."""
    row = {"step": step, "loss": f"{loss:.5f}", "seconds_per_step": f"{seconds:.3f}"}
    for name in ("pooled", "within", "crop"):
        row[name] = f"{np.mean([getattr(s, name) for s in scores.values()]):.4f}"
    row |= {f"pooled_{family}": f"{score.pooled:.4f}" for family, score in scores.items()}
    lines: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as stream:
            lines = [line for line in csv.DictReader(stream) if int(line["step"]) < step]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row)
        writer.writeheader()
        writer.writerows([*lines, row])


def _plot(out: Path) -> None:
    """Loss and held-out AUROC over the steps."""
    from matplotlib.figure import Figure

    with (out / LOG).open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    steps = [int(line["step"]) for line in lines]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [float(line["loss"]) for line in lines], color="#1f4e79")
    left.set(xlabel="step", ylabel="training loss, mean since the last report")
    for name, colour in (("pooled", "#1f4e79"), ("within", "#2e7d32"), ("crop", "#b26a00")):
        right.plot(steps, [float(line[name]) for line in lines], label=name, color=colour)
    right.set(xlabel="step", ylabel="AUROC on generated hold-outs")
    right.legend(frameon=False)
    figure.savefig(out / PLOT, dpi=120)


def _finish(config: TrainingConfig, out: Path, network: HybridBackbone) -> Path:
    """Write the weights in half precision, and the manifest that names them by their hash."""
    weights = save({name: tensor.half().contiguous().cpu() for name, tensor in network.state_dict().items()})
    manifest = {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "architecture": network.architecture.as_dict(),
        "training": config.model_dump(mode="json", exclude={"workers", "architecture"}),
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
        if config.device == "cpu"
        else torch.cuda.get_device_name(config.device),
        "versions": {name: version(name) for name in ("explainvad", "torch")},
    }
    _write(out / WEIGHTS, weights)
    _write(out / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return out / WEIGHTS
