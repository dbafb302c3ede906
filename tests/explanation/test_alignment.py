"""A reference laid over an image: found poses are the true ones, and what shows something else does not register."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from region_examples import make_image, make_region

from explainvad.explanation.alignment import AlignedReference, align
from explainvad.explanation.facts import measure
from explainvad.types import Alignment

SIZE = (400, 300)
BACKGROUND = (60, 62, 66)
HOLE = (150, 90, 180, 120)


def part(turn: float = 0, scale: float = 1, shift: tuple[float, float] = (0, 0), gain: float = 1) -> Image.Image:
    """A plate with holes and a slot in some pose about the picture's centre; shading lies still."""
    fine = 2
    drawn = Image.new("RGB", (fine * SIZE[0], fine * SIZE[1]), BACKGROUND)
    draw = ImageDraw.Draw(drawn)
    draw.rectangle([fine * v for v in (80, 50, 320, 250)], fill=(150, 152, 158))
    for box in (HOLE, (220, 95, 245, 120), (110, 190, 140, 220)):
        draw.ellipse([fine * v for v in box], fill=(35, 35, 40))
    draw.rectangle([fine * v for v in (200, 180, 290, 196)], fill=(210, 170, 90))
    # Pillow's matrix leads from the result to what was drawn
    cx, cy = SIZE[0] / 2, SIZE[1] / 2
    c, s = np.cos(np.radians(turn)) / scale, np.sin(np.radians(turn)) / scale
    x, y = cx + shift[0], cy + shift[1]
    matrix = (c * fine, s * fine, fine * (cx - c * x - s * y), -s * fine, c * fine, fine * (cy + s * x - c * y))
    posed = drawn.transform(SIZE, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=BACKGROUND)
    light = gain * np.linspace(0.9, 1.1, SIZE[0])[None, :, None]
    noise = np.random.default_rng(3).normal(0, 2, (SIZE[1], SIZE[0], 3))
    softened = np.asarray(posed.filter(ImageFilter.GaussianBlur(0.8)))
    return Image.fromarray((softened * light + noise).clip(0, 255).astype(np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def nothing(shape: tuple[int, int] = (SIZE[1], SIZE[0])) -> NDArray[np.bool_]:
    return np.zeros(shape, dtype=np.bool_)


def registered(picture: Image.Image, reference: Image.Image) -> AlignedReference:
    found = align(make_image(np.asarray(picture)), jpeg(reference), nothing())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("turn", "scale", "shift"), [(0, 1, (0, 0)), (2.5, 1, (0, 0)), (-4, 1.03, (11, -6)), (7, 0.96, (-14, 9))]
)
def test_the_true_pose_is_found(turn: float, scale: float, shift: tuple[float, float]) -> None:
    found = registered(part(), part(turn, scale, shift))
    (a, b, x), (c, d, y) = found.alignment.matrix
    assert np.degrees(np.arctan2(c, a)) == pytest.approx(turn, abs=0.15)
    assert np.hypot(a, b) == pytest.approx(scale, abs=0.004)
    centre = (SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2
    moved = a * centre[0] + b * centre[1] + x - centre[0], c * centre[0] + d * centre[1] + y - centre[1]
    assert moved == pytest.approx(shift, abs=0.5)
    assert found.alignment.agreement > 0.85


def test_what_lies_over_the_image_shows_what_is_normal_there() -> None:
    picture, window = part(), (slice(70, 230), slice(100, 300))
    before = np.abs(np.asarray(part(5, 1.02, (9, 4)), dtype=float) - np.asarray(picture))[window].mean()
    laid = registered(picture, part(5, 1.02, (9, 4))).crop(window)
    assert laid is not None and laid.shape == (160, 200, 3)
    assert np.abs(laid.astype(float) - np.asarray(picture)[window]).mean() < before / 3


def test_a_smaller_picture_of_the_reference_serves_as_well() -> None:
    laid = registered(part(), part(3).resize((200, 150), Image.Resampling.LANCZOS)).crop(
        (slice(70, 230), slice(100, 300))
    )
    assert laid is not None
    assert np.abs(laid.astype(float) - np.asarray(part())[70:230, 100:300]).mean() < 6


def test_exposure_is_brought_to_that_of_the_image() -> None:
    laid = registered(part(gain=0.8), part(gain=1.15)).crop((slice(100, 200), slice(190, 210)))
    assert laid is not None
    assert abs(float(laid.mean()) - np.asarray(part(gain=0.8))[100:200, 190:210].mean()) < 2


def test_where_the_reference_ends_nothing_is_said_to_be_normal() -> None:
    found = registered(part(), part(shift=(30, 0)))
    assert found.crop((slice(100, 120), slice(375, 395))) is None
    assert found.crop((slice(100, 120), slice(330, 350))) is not None


def test_other_things_do_not_register() -> None:
    rng = np.random.default_rng(0)
    one, other = (
        Image.fromarray(rng.integers(0, 255, (75, 100, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        for _ in range(2)
    )
    assert align(make_image(np.asarray(one)), jpeg(other), nothing()) is None
    assert align(make_image(np.asarray(part())), jpeg(one), nothing()) is None
    assert align(make_image(np.asarray(part())), jpeg(part(turn=40)), nothing()) is None
    flat = Image.new("RGB", SIZE, (120, 120, 120))
    assert align(make_image(np.asarray(flat)), jpeg(flat), nothing()) is None
    assert align(make_image(np.asarray(part())), jpeg(part()), ~nothing()) is None  # all of it is anomalous


def test_tiny_images_are_no_error() -> None:
    tiny = Image.new("RGB", (5, 3))
    assert align(make_image(np.asarray(tiny)), jpeg(tiny), nothing((3, 5))) is None


def test_a_background_that_lies_still_does_not_count_where_the_part_is_known() -> None:
    rng = np.random.default_rng(1)
    rough = np.asarray(
        Image.fromarray(rng.integers(30, 90, (75, 100), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    )
    pictures = []
    for turn in (0, 4):
        pixels = np.asarray(part(turn)).copy()
        outside = (np.abs(pixels.astype(int) - BACKGROUND).max(axis=2) < 25) & (pixels.max(axis=2) > 50)
        pixels[outside] = rough[outside][:, None]
        pictures.append(pixels)
    on_part = nothing()
    on_part[60:240, 90:310] = True
    found = align(make_image(pictures[0]), jpeg(Image.fromarray(pictures[1])), nothing(), on_part)
    assert found is not None
    (a, _, _), (c, _, _) = found.alignment.matrix
    assert np.degrees(np.arctan2(c, a)) == pytest.approx(4, abs=0.3)


def test_a_missing_hole_is_seen_against_the_reference_alone() -> None:
    """Its surroundings say that all is well: metal among metal."""
    pixels = np.asarray(part()).copy()
    mask = nothing()
    mask[HOLE[1] + 4 : HOLE[3] - 4, HOLE[0] + 4 : HOLE[2] - 4] = True
    filled = mask.copy()
    filled[HOLE[1] - 2 : HOLE[3] + 2, HOLE[0] - 2 : HOLE[2] + 2] = True
    pixels[filled] = pixels[100, 200]
    image = make_image(pixels)
    aligned = align(image, jpeg(part(3, shift=(6, -4))), filled)
    assert aligned is not None
    alone = measure(image, make_region(mask), exclude=filled)
    compared = measure(image, make_region(mask), reference=aligned, exclude=filled)
    assert (alone.baseline, compared.baseline) == ("surrounding ring", "reference image")
    assert alone.brightness == "not measurably different in brightness"
    assert compared.brightness == "brighter" and compared.delta_l > 30


def test_a_box_moves_with_its_centre() -> None:
    quarter = Alignment(((0.0, 1.0, 0.0), (-1.0, 0.0, 99.0)), 1.0)  # of a picture of 100 x 100
    assert quarter.moved((10, 20, 30, 60)) == (30, 60, 50, 100)
