"""One way to train the small networks of the scorers: deterministic, with a schedule, progress and no trace left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explainvad.detection.backbone.optimisation import warm_cosine
from explainvad.types import Progress

Network = TypeVar("Network", bound=nn.Module)

WARM_UP = 0.1  # share of the steps over which the learning rate rises


@contextmanager
def reproducible(seed: int, device: str = "cpu") -> Iterator[torch.Generator]:
    """Seed the global generators, on one thread; all is as it was afterwards. Yields a generator of its own.

    Sums over several threads round differently from run to run.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else []):
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)
    finally:
        torch.set_num_threads(threads)


def train(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    steps: int,
    *,
    learning_rate: float,
    weight_decay: float = 1e-4,
    clip: float = 1.0,
    what: str = "training",
    progress: Progress | None = None,
) -> float:
    """Minimise ``loss_of(step)`` with AdamW under a warm cosine schedule; returns the mean of the last 50 losses.

    Leaves ``network`` in evaluation mode and without gradients.
    """
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay)
    network.train()
    mean_loss = 0.0
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate * warm_cosine(step / steps, WARM_UP)
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimiser.step()
        mean_loss += (float(loss.detach()) - mean_loss) / min(step + 1, 50)
        if progress:
            progress(what, step + 1, steps)
    network.eval().requires_grad_(False)
    return mean_loss


def arrays_of(network: nn.Module) -> dict[str, NDArray[Any]]:
    """The weights of a network, for a bundle; contiguous, because safetensors writes memory as it lies."""
    return {name: array.cpu().contiguous().numpy() for name, array in network.state_dict().items()}


def restored(build: Callable[[], Network], weights: Mapping[str, Tensor]) -> Network:
    """The network that ``build`` makes with these weights; RuntimeError where one is missing or left over.

    In evaluation mode, without gradients, and without drawing random numbers for weights that are replaced.
    """
    with torch.device("meta"):
        network = build()
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)
