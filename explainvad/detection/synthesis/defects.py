"""Defects blended into a picture of something normal, with their masks.

After the ideas of CutPaste (Li et al., CVPR 2021), DRAEM (Zavrtanik et al., ICCV 2021) and NSA (Schlüter et al., ECCV
2022), with shapes and shading of our own: what matters for a detector is variety, not that any one looks real.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.fields import colour, coordinates, rounded, smooth_noise, spectral_noise

VISIBLE = 0.02  # mean change of a pixel's neighbourhood, on [0, 1], below which nothing is called a defect
VISIBLE_ON_TEXTURE = 0.25  # the same, added, in deviations of the picture
SMALLEST, LARGEST = 2.5, 0.22  # radius of a defect: px, and share of the picture's side


def _blur(picture: Tensor, radius: int) -> Tensor:
    """Box blur (C, h, w) with side 2 * radius + 1, edges repeated."""
    padded = F.pad(picture[None], (radius,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * radius + 1, stride=1)[0]


def _shifted(field: Tensor, down: int, right: int) -> Tensor:
    """The field (n, n) moved, with zeros where it came from."""
    reach, n = max(abs(down), abs(right)), len(field)
    padded = F.pad(field, (reach,) * 4)
    return padded[reach - down : reach - down + n, reach - right : reach - right + n]


def _frame(dice: Dice, n: int) -> tuple[Tensor, Tensor]:
    """Coordinates u, v (n, n) in px of a frame at a random place and angle."""
    y, x = coordinates(n)
    y, x = y - dice.uniform(0.04, 0.96) * n, x - dice.uniform(0.04, 0.96) * n
    angle = dice.uniform(0, 2 * math.pi)
    return x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)


def _blob(dice: Dice, n: int) -> tuple[Tensor, Tensor]:
    """Cover (n, n) in [0, 1] of an irregular spot, and its signed distance in units of its radius."""
    radius = dice.log_uniform(SMALLEST, LARGEST * n)
    stretch = dice.log_uniform(1, 3)
    u, v = _frame(dice, n)
    reach = torch.hypot(u / stretch, v * stretch**0.3)
    wobble = dice.uniform(0, 0.45) * smooth_noise(dice, n, n, dice.choice((5, 9, 14)))
    distance = reach / radius + wobble - 1
    return rounded(distance * radius, dice.log_uniform(1, 1 + radius / 2)), distance


def _line(dice: Dice, n: int, width: float) -> Tensor:
    """Cover (n, n) of a bent, wavering stroke that fades towards its ends."""
    u, v = _frame(dice, n)
    length = dice.log_uniform(6, 0.5 * n)
    bend = dice.uniform(-0.02, 0.02) * u.square() + dice.uniform(0, 2.5) * smooth_noise(dice, n, n, 10)
    fade = torch.sigmoid((length - u.abs()) / (0.1 * length + 1))
    return rounded((v + bend).abs() - width / 2) * fade


def _strength(dice: Dice, picture: Tensor) -> float:
    """Contrast of a defect, on [0, 1]: more where the picture itself has more."""
    return dice.log_uniform(0.05, 0.5) + dice.uniform(0.3, 1.5) * float(picture.std())


def scratch(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """One to three bright or dark strokes, some with a raised rim beside them."""
    n = picture.shape[-1]
    cover = torch.zeros(n, n)
    width = dice.log_uniform(1.2, 5)
    for _ in range(1 + dice.integer(3)):
        cover = torch.maximum(cover, _line(dice, n, width))
    profile = cover
    if dice.coin(0.4):
        rim = _shifted(cover, dice.integer(3) - 1, dice.choice((-1, 1)) * (1 + int(width)))
        profile, cover = cover - rim, torch.maximum(cover, rim)
    return picture + dice.sign() * _strength(dice, picture) * profile, cover


def crack(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """A jagged dark path of straight pieces that may branch."""
    n = picture.shape[-1]
    y, x = coordinates(n)
    width = dice.log_uniform(1.0, 4)
    nearest = torch.full((n, n), torch.inf)
    py, px, heading = dice.uniform(0.1, 0.9) * n, dice.uniform(0.1, 0.9) * n, dice.uniform(0, 2 * math.pi)
    for _ in range(3 + dice.integer(6)):
        step = dice.log_uniform(4, 0.16 * n)
        qy, qx = py + step * math.sin(heading), px + step * math.cos(heading)
        along = ((y - py) * (qy - py) + (x - px) * (qx - px)) / step**2
        along = along.clamp(0, 1)
        nearest = torch.minimum(nearest, torch.hypot(y - py - along * (qy - py), x - px - along * (qx - px)))
        if dice.coin(0.8):
            py, px = qy, qx
        heading += dice.uniform(-1.1, 1.1)
    cover = rounded(nearest - width / 2)
    sign = -1.0 if dice.coin(0.75) else 1.0
    return picture + sign * _strength(dice, picture) * cover, cover


def stain(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """A spot that darkens, brightens or tints what lies below, with or without a rim."""
    cover, distance = _blob(dice, picture.shape[-1])
    tint = dice.normal(3) if dice.coin(0.4) else torch.ones(3) * dice.sign()
    tint = tint / tint.norm() * math.sqrt(3) * _strength(dice, picture)
    rim = dice.uniform(0, 1.5) * torch.exp(-dice.uniform(10, 60) * distance.square()) if dice.coin(0.3) else 0.0
    shape = cover * (1 + rim)
    if dice.coin(0.3):
        shape = shape * (0.6 + 0.4 * smooth_noise(dice, cover.shape[0], cover.shape[1], 12))
    if dice.coin():
        return picture * (1 + tint[:, None, None] * shape), cover
    return picture + tint[:, None, None] * shape, cover


def pit(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """Small holes: dark inside, some with a bright crescent where the edge meets the light."""
    n = picture.shape[-1]
    cover, crescent = torch.zeros(n, n), torch.zeros(n, n)
    for _ in range(1 + dice.integer(3)):
        radius = dice.log_uniform(1.8, 0.08 * n)
        u, v = _frame(dice, n)
        reach = torch.hypot(u, v * dice.log_uniform(1, 2)) + dice.uniform(0, 1.5) * smooth_noise(dice, n, n, 16)
        cover = torch.maximum(cover, rounded(reach - radius, dice.log_uniform(1, 3)))
        crescent = crescent + torch.exp(-((reach - radius) ** 2) / 3) * torch.sigmoid(u)
    depth = dice.uniform(0.3, 1.0)
    dark = dice.uniform(0.0, 0.25)
    altered = picture + depth * cover * (dark - picture)
    return altered + dice.uniform(0, 0.3) * dice.choice((0.0, 1.0)) * crescent, cover


def dent(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """A bump or hollow: bright on one side, dark on the other."""
    n = picture.shape[-1]
    u, v = _frame(dice, n)
    radius = dice.log_uniform(3, LARGEST * n)
    reach = torch.hypot(u, v * dice.log_uniform(1, 2)) / radius
    shade = u / radius * torch.exp(-1.5 * reach.square()) * 2
    return picture + _strength(dice, picture) * shade, (reach < 1.8).float()


def foreign(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """Another material shows: a patch of the donor picture or of generated noise."""
    n = picture.shape[-1]
    cover, _ = _blob(dice, n)
    if dice.coin():
        texture = spectral_noise(dice, n, dice.log_uniform(1, 8)) * dice.log_uniform(0.03, 0.25)
        mean = picture.mean((1, 2)) if dice.coin() else colour(dice)
        material = mean[:, None, None] + texture
    else:
        material = torch.rot90(donor, dice.integer(4), (1, 2))
    opacity = dice.uniform(0.4, 1.0) * cover
    return picture + opacity * (material - picture), cover


def displaced(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """A piece of the picture itself in the wrong place, turned or mirrored."""
    n = picture.shape[-1]
    cover, _ = _blob(dice, n)
    moved = torch.roll(picture, (dice.integer(n), dice.integer(n)), (1, 2))
    moved = torch.rot90(moved, dice.integer(4), (1, 2)) if dice.coin() else moved.flip(1 + dice.integer(2))
    moved = moved + dice.choice((0.0, 0.0, 1.0)) * dice.uniform(-0.15, 0.15)
    return picture + cover * (moved - picture), cover


def missing(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """Structure is gone: smeared, worn or covered, by a wide blur or a plain colour."""
    n = picture.shape[-1]
    cover, _ = _blob(dice, n)
    kind = dice.integer(3)
    if kind == 0:
        plain = _blur(picture, 2 + dice.integer(6))
    elif kind == 1:
        plain = picture.mean((1, 2), keepdim=True) + dice.uniform(-0.1, 0.1)
    else:
        plain = picture + dice.uniform(0.4, 0.9) * (_blur(picture, n // 8) - picture)
    return picture + cover * (plain - picture), cover


def roughened(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """Frayed, corroded or scuffed: fine noise and more contrast within a patch."""
    n = picture.shape[-1]
    cover, _ = _blob(dice, n)
    noise = spectral_noise(dice, n, dice.log_uniform(1, 12), dice.log_uniform(0.05, 0.3))
    if dice.coin():
        noise = noise.clamp_min(0.3) * dice.sign()
    contrast = dice.uniform(-0.5, 1.0) * (picture - _blur(picture, 4))
    return picture + cover * (contrast + _strength(dice, picture) * 0.6 * noise), cover


def broken_edge(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """Material has broken away: a jagged piece of another brightness, with a bright or dark fracture line."""
    n = picture.shape[-1]
    u, v = _frame(dice, n)
    jag = dice.uniform(1, 6) * smooth_noise(dice, n, n, 10) + dice.uniform(0, 2) * smooth_noise(dice, n, n, 28)
    depth, half = dice.log_uniform(4, 0.3 * n), dice.log_uniform(6, 0.35 * n)
    distance = torch.maximum(v.abs() - depth / 2, u.abs() - half) + jag
    cover = rounded(distance, dice.log_uniform(1, 3))
    ground = colour(dice)[:, None, None] if dice.coin(0.4) else picture * dice.uniform(0.1, 0.6)
    ground = ground + dice.uniform(0, 0.08) * spectral_noise(dice, n, 1.0)
    line = torch.exp(-(distance**2) / dice.uniform(1, 6)) * dice.sign() * dice.uniform(0, 0.3)
    return picture + dice.uniform(0.5, 1.0) * cover * (ground - picture) + line, (distance < 4).float()


def warped(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """The picture is bent within a patch: structure shifted or swollen."""
    n = picture.shape[-1]
    cover, _ = _blob(dice, n)
    y, x = coordinates(n)
    shift = dice.log_uniform(3, 12)
    dy, dx = (shift * smooth_noise(dice, n, n, 4) * cover for _ in range(2))
    grid = torch.stack(((2 * (x + dx) + 1) / n - 1, (2 * (y + dy) + 1) / n - 1), dim=-1)[None]
    return F.grid_sample(picture[None], grid, padding_mode="reflection", align_corners=False)[0], cover


def spatter(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
    """A cluster of specks: dust, droplets, pinholes."""
    n = picture.shape[-1]
    near, _ = _blob(dice, n)
    size = dice.choice((1, 2, 3))
    specks = (dice.rand(n, n) < dice.log_uniform(0.01, 0.15) / size**2) & (near > 0.3)
    cover = F.max_pool2d(specks.float()[None], 2 * (size // 2) + 1, stride=1, padding=size // 2)[0]
    cover = _blur(cover[None], 1)[0].mul(1.5).clamp_max(1)
    return picture + dice.sign() * _strength(dice, picture) * cover, cover


KINDS: dict[str, Callable[[Dice, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    f.__name__: f
    for f in (
        scratch, crack, stain, pit, dent, foreign, displaced, missing, roughened, broken_edge, warped, spatter,
    )
}  # fmt: skip


def blend_defects(
    dice: Dice, picture: Tensor, donor: Tensor, kinds: tuple[str, ...] = (), count: int | None = None
) -> tuple[Tensor, Tensor]:
    """Blend defects into ``picture``, float32 (3, n, n) on [0, 1]: ``count`` of them, or one to three by chance.

    ``donor`` is another picture like it.

    Returns the altered picture, clipped to [0, 1], and the mask of what visibly changed, bool (n, n), which may be
    empty: a defect that nobody could see is none. ``kinds`` restricts what is drawn.
    """
    altered, shape = picture, torch.zeros(picture.shape[1:])
    for _ in range(count or dice.choice((1, 1, 1, 2, 2, 3))):
        altered, cover = KINDS[dice.choice(kinds or tuple(KINDS))](dice, altered, donor)
        shape = torch.maximum(shape, cover)
    altered = altered.clamp(0, 1)
    change = _blur((altered - picture).abs().amax(0, keepdim=True), 2)[0]
    return altered, (shape > 0.25) & (change > VISIBLE + VISIBLE_ON_TEXTURE * picture.std())
