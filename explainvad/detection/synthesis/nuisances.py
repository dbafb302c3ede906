"""What differs between pictures of normal things: light, exposure, noise, focus, and the marks that all bear."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.fields import coordinates, smooth_noise, spots


def relight(dice: Dice, picture: Tensor, strength: float) -> Tensor:
    """Change exposure, contrast, gamma, white balance and the light's gradient; ``strength`` 0 changes nothing.

    RGB float32 (3, h, w) about [0, 1] in and out.
    """
    rows, cols = picture.shape[1:]
    gain = 2.0 ** (strength * dice.uniform(-0.6, 0.6))
    balance = 1 + strength * 0.06 * dice.normal(3)[:, None, None]
    light = 1 + strength * 0.14 * smooth_noise(dice, rows, cols, dice.choice((2, 3, 4)))
    veil = strength * (0.06 * smooth_noise(dice, rows, cols, 2) + dice.uniform(-0.08, 0.08))
    picture = picture * gain * balance * light + veil
    if dice.coin(0.5 * min(1.0, strength)):
        picture = picture.clamp(1e-3, 2).pow(2.0 ** dice.uniform(-0.5, 0.5))
    return picture


def sense(dice: Dice, picture: Tensor, strength: float) -> Tensor:
    """Blur a little, add sensor noise, clip to [0, 1]."""
    if dice.coin(0.4 * strength):
        w = dice.uniform(0.05, 0.25)
        kernel = torch.tensor([w, 1 - 2 * w, w])
        padded = F.pad(picture[:, None], (1, 1, 1, 1), mode="replicate")
        picture = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 3, 1)), kernel.view(1, 1, 1, 3))[:, 0]
    grain = strength * dice.log_uniform(0.003, 0.06)
    noise = dice.normal(*picture.shape) if dice.coin(0.3) else dice.normal(1, *picture.shape[1:])
    if dice.coin(0.3):  # noise that demosaicking or compression has smeared
        noise = 2 * F.avg_pool2d(noise[None], 3, stride=1, padding=1)[0]
    return (picture + grain * noise).clamp(0, 1)


def usual_marks(dice: Dice, canvas: Tensor) -> Tensor:
    """Specks, short strokes or rings that are normal for this surface: they occur everywhere on the canvas."""
    rows, cols = canvas.shape[1:]
    side = 2 * dice.choice((2, 4, 7, 11)) + 1
    y, x = (c - side // 2 for c in coordinates(side))
    kind = dice.integer(3)
    if kind == 0:
        stamp = torch.exp(-(y**2 + x**2) / (0.08 * side**2))
    elif kind == 1:
        angle = torch.tensor(dice.uniform(0, torch.pi))
        stamp = torch.exp(-((-x * angle.sin() + y * angle.cos()) ** 2) / 0.8)
        stamp = stamp * (torch.hypot(y, x) < side / 2)
    else:
        stamp = torch.exp(-((torch.hypot(y, x) - side / 3) ** 2) / 1.5)
    marks = spots(dice, rows, cols, dice.log_uniform(0.0003, 0.004), stamp).clamp_max(1.2)
    return canvas + dice.sign() * dice.log_uniform(0.04, 0.3) * marks
