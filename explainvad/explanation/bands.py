"""Where a number becomes a word: the edges of every band, in one table that a report can print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bands:
    """Limits behind the words of a region's facts."""

    cell_share: float = 0.20  # a cell of the 3 x 3 grid counts from this share of the region on
    centre_radius: float = 1 / 3  # of the frame's half axes: nearer is the central zone
    rim_radius: float = 2 / 3  # of the frame's half axes: further is the rim
    point_area: int = 12  # px: smaller regions are "point-like", too small for a shape
    elongated: float = 1.8  # length / width: from here "elongated", and the orientation means something
    line_like: float = 5.0  # length / width: from here "line-like"
    irregular_solidity: float = 0.80  # area / convex area: below it "irregular"
    ring_fill: float = 0.75  # area / area with holes filled: below it "ring-shaped"
    hole_share: float = 0.01  # of the filled area: smaller holes are ragged thresholding, not holes
    tiny_area: float = 0.001  # of the part: smaller regions are "tiny" where a model must choose a word
    small_area: float = 0.01  # of the part: below it "small"
    medium_area: float = 0.10  # of the part: below it "medium", from here "large"
    ring_gap: float = 0.006  # of the diagonal: left out around a region, where edges are soft
    ring_width: float = 0.020  # of the diagonal: the surroundings that a region is compared with
    just_noticeable: float = 2.3  # CIELAB units: smaller differences are not seen (Mahy et al., 1994)


BANDS = Bands()
