"""Facts for tests: coherent, random and of every combination that measurement can produce."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.explanation.colour import COLOURS, NO_BASELINE, REFERENCE, RING, SAME_BRIGHTNESS
from explainvad.explanation.place import PLACES
from explainvad.types import InspectionImage, Mask, Region, RegionFacts


def make_image(pixels: NDArray[np.uint8], mm_per_pixel: float | None = None, name: str = "part") -> InspectionImage:
    from pathlib import Path

    return InspectionImage(name, f"{name}.png", pixels, name, 1, Path(f"{name}.png"), mm_per_pixel)


def make_region(mask: NDArray[np.bool_], region_id: str = "R1") -> Region:
    y, x = np.nonzero(mask)
    return Region(
        region_id=region_id,
        mask=Mask.from_array(mask),
        xyxy=(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1) if x.size else (0, 0, 0, 0),
        peak_xy=(int(x[0]), int(y[0])) if x.size else (0, 0),
        peak_value=1.0,
        mass=1.0,
        area_px=int(mask.sum()),
        area_mm2=None,
        p_value=0.01,
        refined_by="threshold",
        evidence_share={"scorer": 1.0},
    )


def make_facts(**changes: Any) -> RegionFacts:
    """A dark, elongated region in the upper left of the part, with ``changes``."""
    facts = RegionFacts(
        place="upper left",
        cells=("upper left",),
        frame="part",
        image_place="upper left",
        image_cells=("upper left",),
        clock=10,
        radial_zone="rim",
        touches_edge=False,
        area_px=96,
        area_mm2=1.38,
        area_share=0.004,
        length_px=34.2,
        width_px=9.1,
        length_mm=4.10,
        width_mm=1.09,
        elongation=3.76,
        solidity=0.91,
        holes=0,
        shape="elongated",
        orientation_deg=32.0,
        delta_l=-12.4,
        delta_a=0.3,
        delta_b=-0.4,
        delta_e=10.0,
        noise_delta_e=1.8,
        baseline=RING,
        brightness="darker",
        colour=None,
    )
    return dataclasses.replace(facts, **changes)


def random_facts(seed: int) -> RegionFacts:
    """Draw coherent facts; nearly every combination of words comes up within a thousand seeds."""
    rng = np.random.default_rng(seed)

    def pick(*options: Any) -> Any:
        return options[rng.integers(len(options))]

    place = pick(*PLACES)
    row, column = divmod(PLACES.index(place), 3)
    neighbours = [p for i, p in enumerate(PLACES) if abs(i // 3 - row) + abs(i % 3 - column) == 1]
    n_more = pick(0, 0, 0, 1, 2)
    cells = pick((), *[(place, *rng.permutation(neighbours)[:n_more].tolist())] * 8)
    central = place == "centre"
    shape = pick("compact", "elongated", "line-like", "irregular", "ring-shaped", "point-like")
    elongation = {
        "line-like": rng.uniform(5.1, 30),
        "elongated": rng.uniform(1.81, 4.9),
    }.get(shape, rng.uniform(1, 1.7))
    width = float(np.exp(rng.uniform(-0.3, 6)))
    scale = pick(None, float(np.exp(rng.uniform(-7, 1))))
    area = int(rng.integers(1, 11)) if shape == "point-like" else int(rng.integers(12, 10**6))
    baseline = pick(RING, RING, RING, REFERENCE, NO_BASELINE)
    none = baseline == NO_BASELINE
    angle = 0.0 if none else float(rng.uniform(0, 2 * np.pi))
    chroma = 0.0 if none else float(rng.uniform(3, 40))
    colour = None if none else pick(None, COLOURS[round(np.degrees(angle) / 45) % 8])
    brightness = SAME_BRIGHTNESS if none else pick("darker", "brighter", SAME_BRIGHTNESS)
    size = 0.0 if none else float(rng.uniform(3, 60))
    return RegionFacts(
        place=place,
        cells=cells,
        frame=pick("part", "image"),
        image_place=place,
        image_cells=cells,
        clock=None if central else pick(None, *range(1, 13), *range(1, 13)),
        radial_zone=pick("centre", "middle") if central else pick("middle", "rim"),
        touches_edge=pick(True, False),
        area_px=area,
        area_mm2=None if scale is None else area * scale**2,
        area_share=float(np.exp(rng.uniform(np.log(1e-7), 0))),
        length_px=width * elongation,
        width_px=width,
        length_mm=None if scale is None else width * elongation * scale,
        width_mm=None if scale is None else width * scale,
        elongation=elongation,
        solidity=float(rng.uniform(0.3, 0.79) if shape == "irregular" else rng.uniform(0.81, 1)),
        holes=int(rng.integers(1, 4)) if shape == "ring-shaped" else pick(0, 0, 0, 1, 2, 13),
        shape=shape,
        orientation_deg=float(pick(0.2, 89.8, 179.9, *rng.uniform(0, 180, 5))) if elongation >= 1.8 else None,
        delta_l=size if brightness == "brighter" else -size if brightness == "darker" else size / 40,
        delta_a=chroma * float(np.cos(angle)),
        delta_b=chroma * float(np.sin(angle)),
        delta_e=0.0 if none else float(rng.uniform(0, 50)),
        noise_delta_e=0.0 if none else float(rng.uniform(0, 5)),
        baseline=baseline,
        brightness=brightness,
        colour=colour,
    )
