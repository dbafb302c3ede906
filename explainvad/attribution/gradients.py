"""What pixels do to a scorer's number: integrated gradients, occlusion and Grad-CAM, by captum.

Each compares the image with a baseline, a picture of a normal part, so that a map says what makes this image more
anomalous than that picture, not than black. Results are in the network's frame, (rows, cols) of its window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explainvad.errors import NotExplainableError
from explainvad.types import PixelFunction

STEPS = 32  # of the path integral, Gauss-Legendre
AT_ONCE = 4  # frames in a pass
OCCLUDED = 8  # windows along the shorter side that are replaced in turn


@dataclass(frozen=True, slots=True, eq=False)
class PixelMap:
    """A map over the frame, or a grid over it, float32 on the CPU, with figures that say how far to trust it."""

    values: Tensor  # (rows, cols)
    facts: dict[str, float]


def ends(function: PixelFunction) -> dict[str, float]:
    """The number at the image and at the baseline: figures of every map that compares them."""
    with torch.no_grad():
        at, base = function.value(function.frame[None]), function.value(function.baseline[None])
    return {"value": float(at), "baseline_value": float(base)}


def integrated_gradients(function: PixelFunction, steps: int = STEPS) -> PixelMap:
    """Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", ICML 2017; channels summed.

    Completeness: the map's sum is f(image) - f(baseline). ``convergence_delta`` is how far ``steps`` leave it off;
    where it is large beside that difference, the map is not to be relied on.
    """
    from captum.attr import IntegratedGradients

    with torch.enable_grad():
        found, delta = IntegratedGradients(function.value).attribute(
            function.frame[None].clone().requires_grad_(),
            baselines=function.baseline[None],
            n_steps=steps,
            internal_batch_size=AT_ONCE,
            return_convergence_delta=True,
        )
    return PixelMap(found[0].detach().sum(0).float().cpu(), {"convergence_delta": float(delta)})


def occlusion(function: PixelFunction, windows: int = OCCLUDED) -> PixelMap:
    """Zeiler & Fergus, ECCV 2014: by how much the number falls where a square is replaced by the baseline's.

    ``windows`` squares go along the shorter side, without overlap: each pixel has the fall of its square.
    """
    from captum.attr import Occlusion

    side = max(1, -(-min(function.frame.shape[1:]) // windows))
    with torch.no_grad():
        found = Occlusion(function.value).attribute(
            function.frame[None],
            sliding_window_shapes=(3, side, side),
            strides=(3, side, side),
            baselines=function.baseline[None],
            perturbations_per_eval=AT_ONCE,
        )
    return PixelMap(found[0, 0].float().cpu(), {"square_px": float(side)})


def layer_grad_cam(function: PixelFunction) -> PixelMap:
    """Selvaraju et al., "Grad-CAM", ICCV 2017, on the last convolution before the number: its grid, values >= 0.

    Raises NotExplainableError where no layer of channels lies before it, as in a plain transformer.
    """
    from captum.attr import LayerGradCam

    layer = function.layer
    if layer is None or _dimensions(layer, function.value, function.frame) != 4:
        raise NotExplainableError(
            "the layers before its number are tokens, no maps of channels; see gradient-weighted attention"
        )
    with torch.enable_grad():
        # a frozen network gives its layers gradients only where its input has one
        frame = function.frame[None].clone().requires_grad_()
        found = LayerGradCam(function.value, layer).attribute(frame, relu_attributions=True)
    return PixelMap(found[0, 0].detach().float().cpu(), {})


def _dimensions(layer: nn.Module, value: Callable[[Tensor], Tensor], frame: Tensor) -> int:
    """Dimensions of what a layer puts out; 0 where it does not run."""
    seen: list[int] = []

    def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen.append(output.ndim if isinstance(output, Tensor) else 0)

    hook = layer.register_forward_hook(look)
    try:
        with torch.no_grad():
            value(frame[None])
    finally:
        hook.remove()
    return seen[-1] if seen else 0
