"""One hash for all that a model is asked: that of the questions about an example, which holds every fact."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from PIL import Image

from explainvad.explanation.describers.pictures import Pictures
from explainvad.explanation.describers.prompt import region_question
from explainvad.types import Finding, Mask, Region, RegionFacts

_PIXEL = Mask.from_array(np.ones((1, 1), dtype=np.bool_))
_REGION = Region("R1", _PIXEL, (0, 0, 1, 1), (0, 0), 1.0, 1.0, 1, 1.0, 1.0, "threshold", {"scorer": 1.0})
_FACTS = RegionFacts(  # none missing, and with more digits than are told
    place="upper left",
    cells=("upper left", "top"),
    frame="part",
    image_place="centre",
    image_cells=("centre",),
    clock=10,
    radial_zone="rim",
    touches_edge=True,
    area_px=1234,
    area_mm2=12.3456,
    area_share=0.0123456,
    length_px=123.4567,
    width_px=12.34567,
    length_mm=12.34567,
    width_mm=1.234567,
    elongation=10.01,
    solidity=0.912345,
    holes=2,
    shape="elongated",
    orientation_deg=12.34567,
    delta_l=-12.34567,
    delta_a=1.234567,
    delta_b=-1.234567,
    delta_e=12.34567,
    noise_delta_e=1.234567,
    baseline="surrounding ring",
    brightness="darker",
    colour="redder",
)


@lru_cache(maxsize=2)
def prompt_hash(arm: str) -> str:
    """SHA-256 of the questions of an ``arm`` about an example: words, facts told, their rounding, schema and order."""
    shown = (Image.new("RGB", (1, 1), (grey,) * 3) for grey in range(4))
    pictures = Pictures(*shown)
    digest = hashlib.sha256()
    for complaint in (None, "COMPLAINT"):
        question = region_question(pictures, Finding(_REGION, _FACTS, ()), ("R1", "R2"), "NAME", arm, complaint)
        digest.update(question.digest("").encode())
    return digest.hexdigest()
