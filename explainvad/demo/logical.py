"""Pictures of a tray with logical defects: every piece in them is normal, only what goes together is not.

For measuring without licensed data how far a model sees rules, not only surfaces. Written is MVTec LOCO AD's layout,
with one mask for each defect and its saturation threshold (Bergmann et al., "Beyond dents and scratches", IJCV 2022).
The tray has six compartments. On a good picture each holds one pin, wherever it lies in it; and the bar below is as
long as the colour of the label beside it says: red short, green long.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from explainvad.whole_files import write_whole

WIDTH, HEIGHT = 320, 256  # px
N_TRAIN, N_GOOD, N_EACH = 120, 30, 8  # pictures to fit, good ones for validation and test each, defects of each kind

_SCALE = 3  # supersampling
_CELL, _GAP, _LEFT, _TOP = 84, 12, 22, 16  # px; of the 3 x 2 compartments
_PIN_LENGTH, _PIN_WIDTH = 44, 9
_BAR_Y, _BAR_WIDTH, _BAR_X = 226, 18, 96
_LENGTHS = {"red": 70, "green": 140}
_LABEL = (28, 212, 64, 240)
_COLOURS = {"red": (176, 52, 44), "green": (58, 140, 72)}
_TRAY, _FLOOR, _STEEL, _BRASS = (70, 74, 82), (46, 49, 56), (182, 186, 190), (186, 160, 92)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin in compartment 0..5, about its centre (px) and turned by ``angle`` (radians)."""

    compartment: int
    x: float
    y: float
    angle: float

    def ends(self) -> list[tuple[float, float]]:
        """Both ends of its axis, px."""
        dx, dy = (_PIN_LENGTH / 2 * f(self.angle) for f in (np.cos, np.sin))
        return [(self.x - dx, self.y - dy), (self.x + dx, self.y + dy)]


@dataclass(frozen=True, slots=True)
class Tray:
    """What lies in the tray, and how it was photographed. ``scratch`` are its points, px."""

    pins: tuple[Pin, ...]
    label: str
    bar: str
    scratch: tuple[tuple[float, float], ...] = ()
    light: tuple[float, float, float] = (1.0, 0.0, 0.0)  # brightness, its slopes to the right and down

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Tray:
        """A good tray."""
        colour = str(rng.choice(list(_LENGTHS)))
        light = float(rng.uniform(0.94, 1.06)), float(rng.normal(0, 0.04)), float(rng.normal(0, 0.04))
        return cls(tuple(_pin(rng, n) for n in range(6)), colour, colour, light=light)


def missing(rng: np.random.Generator, tray: Tray) -> tuple[Tray, Mask]:
    """A pin is missing; the mask is its compartment, in which it may lie anywhere."""
    gone = int(rng.integers(6))
    return replace(tray, pins=tuple(p for p in tray.pins if p.compartment != gone)), _mask("rectangle", _box(gone))


def additional(rng: np.random.Generator, tray: Tray) -> tuple[Tray, Mask]:
    """A compartment holds two pins, of which either is too many: the mask is both."""
    twice = int(rng.integers(6))
    x0, y0, x1, y1 = _box(twice)
    pair = [Pin(twice, (x0 + x1) / 2, (y0 + y1) / 2 + d, float(rng.normal(0, 0.15))) for d in (-18, 18)]
    others = tuple(p for p in tray.pins if p.compartment != twice)
    return replace(tray, pins=(*others, *pair)), _pins_mask(pair)


def mismatch(rng: np.random.Generator, tray: Tray) -> tuple[Tray, Mask]:
    """Bar and label do not belong together; either may be the wrong one, so the mask is both."""
    other = "green" if tray.label == "red" else "red"
    changed = replace(tray, bar=other)
    return changed, _mask("rectangle", _LABEL) | _mask("rectangle", _bar_box(other))


def scratched(rng: np.random.Generator, tray: Tray) -> tuple[Tray, Mask]:
    """A structural defect to compare with: a bright scratch across the tray."""
    start = rng.uniform((30, 30), (WIDTH - 110, HEIGHT - 80))
    steps = np.cumsum(rng.normal((9, 5), 3, (8, 2)), axis=0)
    points = tuple((float(x), float(y)) for x, y in (start + steps).tolist())
    return replace(tray, scratch=points), _mask("line", points, width=3)


# kind -> how it is made, its type in MVTec LOCO's terms, and its saturation: px, or a share of its area
KINDS = {
    "missing_pin": (missing, "logical_anomalies", _PIN_LENGTH * _PIN_WIDTH, False),
    "additional_pin": (additional, "logical_anomalies", _PIN_LENGTH * _PIN_WIDTH, False),
    "label_mismatch": (mismatch, "logical_anomalies", (_LABEL[2] - _LABEL[0]) * (_LABEL[3] - _LABEL[1]), False),
    "scratch": (scratched, "structural_anomalies", 1.0, True),
}


def make_logical(out: Path, seed: int = 0, n_train: int = N_TRAIN, n_good: int = N_GOOD, n_each: int = N_EACH) -> Path:
    """Write the data set ``out/tray`` and return ``out``. A picture is the same for the same seed and number."""
    place = out / "tray"
    good = [
        (split, n)
        for split, many in (("train", n_train), ("validation", n_good), ("test", n_good))
        for n in range(many)
    ]
    for number, (split, n) in enumerate(good):
        rng = np.random.default_rng((seed, 0, number))
        _save(place / split / "good" / f"{n:03d}.png", photograph(Tray.draw(rng), rng))
    written = dict.fromkeys(("logical_anomalies", "structural_anomalies"), 0)
    configuration = []
    for index, (name, (make, kind, saturation, relative)) in enumerate(KINDS.items()):
        value = 255 - index
        configuration.append(
            {
                "defect_name": name,
                "pixel_value": value,
                "saturation_threshold": saturation,
                "relative_saturation": relative,
            }
        )
        for number in range(n_each):
            rng = np.random.default_rng((seed, 1 + index, number))
            tray, mask = make(rng, Tray.draw(rng))
            stem = f"{written[kind]:03d}"
            written[kind] += 1
            _save(place / "test" / kind / f"{stem}.png", photograph(tray, rng))
            _save(place / "ground_truth" / kind / stem / "000.png", mask.astype(np.uint8) * np.uint8(value))
    text = json.dumps(configuration, indent=1) + "\n"
    write_whole(place / "defects_config.json", text.encode(), place / ".defects_config.json.part")
    return out


def photograph(tray: Tray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture, uint8 (HEIGHT, WIDTH, 3), with noise."""
    picture = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), _TRAY)
    draw = ImageDraw.Draw(picture)
    for compartment in range(6):
        draw.rounded_rectangle(_scaled(_box(compartment)), 6 * _SCALE, fill=_FLOOR)
    for pin in tray.pins:
        draw.line(_scaled(pin.ends()), fill=_STEEL, width=_PIN_WIDTH * _SCALE)
        draw.line(_scaled(pin.ends()), fill=(222, 225, 228), width=2 * _SCALE)
    draw.rectangle(_scaled(_LABEL), fill=_COLOURS[tray.label])
    draw.rectangle(_scaled(_bar_box(tray.bar)), fill=_BRASS)
    if tray.scratch:
        draw.line(_scaled(tray.scratch), fill=(214, 216, 220), width=3 * _SCALE)
    light = np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX), dtype=np.float64)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    brightness, right, down = tray.light
    light = light * (brightness + right * x + down * y)[..., None] + rng.normal(0, 2.5, light.shape)
    return np.asarray(np.clip(light.round(), 0, 255), dtype=np.uint8)


def _box(compartment: int) -> tuple[float, float, float, float]:
    row, column = divmod(compartment, 3)
    x, y = _LEFT + column * (_CELL + _GAP), _TOP + row * (_CELL + _GAP)
    return x, y, x + _CELL, y + _CELL


def _bar_box(colour: str) -> tuple[float, float, float, float]:
    return _BAR_X, _BAR_Y - _BAR_WIDTH / 2, _BAR_X + _LENGTHS[colour], _BAR_Y + _BAR_WIDTH / 2


def _pin(rng: np.random.Generator, compartment: int) -> Pin:
    """Anywhere in its compartment, but whole."""
    x0, y0, x1, y1 = _box(compartment)
    x, y = rng.uniform((x0 + 28, y0 + 28), (x1 - 28, y1 - 28))
    return Pin(compartment, float(x), float(y), float(rng.uniform(0, np.pi)))


def _pins_mask(pins: list[Pin]) -> Mask:
    both: Mask = np.any([_mask("line", pin.ends(), width=_PIN_WIDTH) for pin in pins], axis=0)
    return both


def _mask(shape: str, where: object, **how: int) -> Mask:
    """Bool (HEIGHT, WIDTH): what a shape of ImageDraw covers by half or more."""
    picture = Image.new("L", (WIDTH * _SCALE, HEIGHT * _SCALE), 0)
    scaled = {name: value * _SCALE for name, value in how.items()}
    getattr(ImageDraw.Draw(picture), shape)(_scaled(where), fill=255, **scaled)
    covered: Mask = np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)) >= 128
    return covered


def _scaled(where: object) -> list[float]:
    return (np.asarray(where, dtype=np.float64) * _SCALE).ravel().tolist()


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
