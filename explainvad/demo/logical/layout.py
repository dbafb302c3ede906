"""The rule of the kit: what lies where on a tray, and what may vary.

A tray of 128 x 128 px has a header, a left and a right field of six seats each, and a footer. It is good if, and only
if, four things hold:

1. *Place.* Bolts lie in the left field only, rings in the right field only.
2. *Count.* There are two to four bolts and as many rings: to each bolt belongs the ring in the seat that mirrors its
   own about the middle of the tray.
3. *Pair.* Flag and cap, left and right in the header, have the same colour, whichever of the three it is.
4. *Completeness.* Flag, cap and clip are there; the clip lies in the footer.

All else varies from one good tray to the next: how many bolts there are and in which seats, the colour, by how much
each part is off its seat (JITTER) and turned, how the tray lies and is lit. A logical defect breaks one of the four and
consists of parts that each look and lie as parts of good trays do; only their relation is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

SIDE = 128  # px of a tray's picture
MIRROR = 64.0  # px; x of the axis between the fields
COLUMNS, ROWS = (21.0, 46.0), (48.0, 71.0, 94.0)  # px, of the left field's seats
LEFT = tuple((x, y) for y in ROWS for x in COLUMNS)
RIGHT = tuple((2 * MIRROR - x, y) for x, y in LEFT)
FLAG, CAP, CLIP = (36.0, 19.0), (92.0, 19.0), (64.0, 115.0)
COUNTS = (2, 3, 4)  # bolts of a good tray
COLOURS = ("red", "green", "blue")
JITTER = 1.5  # px, the most that a part is off its seat, to each side
TURNS = 12  # ways in which a part may be turned
NEAR = 5.0  # px; a part that is farther from a seat does not lie in it

Seat = tuple[float, float]  # x, y in px of the tray


@dataclass(frozen=True, slots=True)
class Item:
    """A part by its name, "bolt", "ring", "clip", "flag-COLOUR" or "cap-COLOUR", its centre in px and its turn."""

    part: str
    x: float
    y: float
    turn: int = 0

    def lies_in(self, seat: Seat) -> bool:
        """Whether this is the seat that it lies in."""
        return bool(np.hypot(self.x - seat[0], self.y - seat[1]) <= NEAR)


Layout = tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class LogicalDefect:
    """A layout that breaks the rule, and what a mask has to mark: things too many or wrong, and things not there."""

    layout: Layout
    wrong: Layout


def good_layout(rng: np.random.Generator) -> Layout:
    """Draw what lies on a good tray."""
    colour = str(rng.choice(COLOURS))
    seats = rng.choice(len(LEFT), rng.choice(COUNTS), replace=False)
    return (
        _laid(f"flag-{colour}", FLAG, rng),
        _laid(f"cap-{colour}", CAP, rng),
        _laid("clip", CLIP, rng),
        *(_laid("bolt", LEFT[seat], rng) for seat in seats),
        *(_laid("ring", RIGHT[seat], rng) for seat in seats),
    )


def broken_rules(layout: Sequence[Item]) -> tuple[str, ...]:
    """Which of the four rules a tray breaks, by the names of LOGICAL; empty for a good one."""
    broken = []
    fields = {field: [i for i in layout for seat in seats if i.lies_in(seat)] for field, seats in _FIELDS.items()}
    strays = [i for i in layout if i.part in _FIELDS and i not in fields[i.part]]
    if strays:
        broken.append("wrong_place")
    counts = [sum(i.part == part for i in layout) for part in _FIELDS]
    # a stray counts, but is not asked for its partner: it breaks one rule, not two
    mirrored = {(2 * MIRROR - x, y) for x, y in (_seat(i, LEFT) for i in fields["bolt"] if i.part == "bolt")}
    partners = {_seat(i, RIGHT) for i in fields["ring"] if i.part == "ring"}
    if counts[0] != counts[1] or counts[0] not in COUNTS or (not strays and mirrored != partners):
        broken.append("wrong_count")
    flags, caps = ([i.part.partition("-")[2] for i in layout if i.part.startswith(kind)] for kind in ("flag-", "cap-"))
    if flags and caps and flags != caps:
        broken.append("wrong_pair")
    if not (flags and caps and any(i.part == "clip" and i.lies_in(CLIP) for i in layout)):
        broken.append("missing_part")
    return tuple(broken)


def wrong_count(layout: Layout, number: int, rng: np.random.Generator) -> LogicalDefect:
    """One or two rings, or bolts, too few or too many by turns; each number occurs on good trays."""
    part, field = (("ring", RIGHT), ("bolt", LEFT))[number % 2]
    here = [item for item in layout if item.part == part]
    least, most = min(COUNTS), max(COUNTS)
    fewer = len(here) == most or (len(here) > least and number % 4 >= 2)
    change = int(rng.integers(1, 1 + (len(here) - least if fewer else most - len(here))))
    if fewer:
        gone = tuple(here[i] for i in rng.choice(len(here), change, replace=False))
        return LogicalDefect(tuple(item for item in layout if item not in gone), gone)
    free = _free(layout, field)
    added = tuple(_laid(part, free[i], rng) for i in rng.choice(len(free), change, replace=False))
    return LogicalDefect(layout + added, added)


def wrong_place(layout: Layout, number: int, rng: np.random.Generator) -> LogicalDefect:
    """A ring among the bolts, or a bolt among the rings, by turns."""
    part, other = (("ring", LEFT), ("bolt", RIGHT))[number % 2]
    here = [item for item in layout if item.part == part]
    free = _free(layout, other)
    gone = here[rng.integers(len(here))]
    moved = _laid(part, free[rng.integers(len(free))], rng)
    return LogicalDefect((*(item for item in layout if item != gone), moved), (moved,))


def wrong_pair(layout: Layout, number: int, rng: np.random.Generator) -> LogicalDefect:
    """A cap of another colour than the flag's; neither is wrong by itself, so both are marked."""
    flag, cap, *others = layout
    colours = [colour for colour in COLOURS if not cap.part.endswith(colour)]
    cap = replace(cap, part=f"cap-{colours[number % len(colours)]}")
    return LogicalDefect((flag, cap, *others), (flag, cap))


def missing_part(layout: Layout, number: int, rng: np.random.Generator) -> LogicalDefect:
    """No clip; its place is marked."""
    gone = next(item for item in layout if item.part == "clip")
    return LogicalDefect(tuple(item for item in layout if item != gone), (gone,))


LOGICAL: dict[str, Callable[[Layout, int, np.random.Generator], LogicalDefect]] = {
    "wrong_count": wrong_count,
    "wrong_place": wrong_place,
    "wrong_pair": wrong_pair,
    "missing_part": missing_part,
}
_FIELDS = {"bolt": LEFT, "ring": RIGHT}


def _laid(part: str, seat: Seat, rng: np.random.Generator) -> Item:
    """Lay a part about its seat."""
    dx, dy = rng.uniform(-JITTER, JITTER, 2).tolist()
    return Item(part, seat[0] + dx, seat[1] + dy, int(rng.integers(TURNS)))


def _free(layout: Layout, field: Sequence[Seat]) -> list[Seat]:
    return [seat for seat in field if not any(item.lies_in(seat) for item in layout)]


def _seat(item: Item, field: Sequence[Seat]) -> Seat:
    return next(seat for seat in field if item.lies_in(seat))
