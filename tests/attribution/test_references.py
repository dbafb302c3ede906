"""The gallery keeps evenly spaced pictures and finds the one that looks most alike."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from explainvad.attribution import references
from explainvad.attribution.references import LARGEST, REACH, THUMBNAIL, ReferenceGallery, thumbnail
from explainvad.types import InspectionImage


def picture(pixels: NDArray[np.uint8], number: int = 0) -> InspectionImage:
    return InspectionImage(f"img-{number}", f"{number}.png", pixels, "0" * 64, 1, Path("a.png"))


def disc(x: int, y: int, size: tuple[int, int] = (96, 120), brightness: float = 1.0) -> NDArray[np.uint8]:
    """A bright disc on a shaded ground."""
    yy, xx = np.indices(size)
    grey = 60 + xx / 4 + 120 * ((xx - x) ** 2 + (yy - y) ** 2 < 15**2)
    return np.repeat((grey * brightness).astype(np.uint8)[..., None], 3, axis=2)


def test_thumbnails_are_standardised_so_that_light_does_not_matter() -> None:
    one = thumbnail(disc(40, 40))
    assert one.shape == (THUMBNAIL**2,) and one.dtype == np.float32
    assert abs(float(np.clip(one, *np.percentile(one, (5, 95))).mean())) < 1e-5
    darker = thumbnail(disc(40, 40, brightness=0.5))
    assert np.sqrt(np.mean((one - darker) ** 2)) < 0.05 < np.sqrt(np.mean((one - thumbnail(disc(60, 40))) ** 2))


def test_a_picture_without_contrast_has_a_finite_thumbnail() -> None:
    assert np.isfinite(thumbnail(np.full((5, 7, 3), 200, dtype=np.uint8))).all()
    assert np.isfinite(thumbnail(np.zeros((1, 1, 3), dtype=np.uint8))).all()


def test_the_nearest_reference_is_the_one_that_looks_alike() -> None:
    places = [(30, 30), (60, 50), (90, 70), (60, 20)]
    gallery = ReferenceGallery.fit([picture(disc(x, y), i) for i, (x, y) in enumerate(places)])
    assert list(gallery.pictures) == ["ref-001", "ref-002", "ref-003", "ref-004"]
    for number, (x, y) in enumerate(places, start=1):
        match, jpeg = gallery.nearest(picture(disc(x + 2, y - 1, brightness=0.9)))
        assert match.reference_id == f"ref-{number:03d}"
        assert jpeg == gallery.pictures[match.reference_id]
        assert match.sha256 == hashlib.sha256(jpeg).hexdigest()
        exact, _ = gallery.nearest(picture(disc(x, y)))
        assert exact.distance == 0.0 < match.distance


def test_a_local_defect_hardly_moves_the_distance_and_another_part_does() -> None:
    gallery = ReferenceGallery.fit([picture(disc(60, 50), i) for i in range(2)])
    damaged, other = disc(60, 50), disc(60, 50)[::-1, ::-1] // 2 + disc(20, 80) // 2
    damaged[10:20, 20:32] = 255  # 1 % of the picture
    distances = [gallery.nearest(picture(pixels))[0].distance for pixels in (damaged, other)]
    assert 0 < distances[0] < 0.2 * distances[1]


def scene(down: int = 0, right: int = 0) -> NDArray[np.uint8]:
    """Blobs on a ground, moved by whole thumbnail pixels: uint8 (96, 120, 3)."""
    coarse = gaussian_filter(np.random.default_rng(3).standard_normal((40, 40)), 1.5)
    part = coarse[8 - down : 32 - down, 8 - right : 32 - right]
    grey = np.kron(128 + 400 * part, np.ones((96 // THUMBNAIL, 120 // THUMBNAIL)))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("moved", [(0, 0), (1, 0), (0, -1), (-3, 2), (5, 5), (-6, 0), (0, 6)])
def test_the_displacement_is_measured_in_shares_of_the_sides(moved: tuple[int, int]) -> None:
    gallery = ReferenceGallery.fit([picture(scene()) for _ in range(3)])
    assert gallery.displacement(picture(scene(*moved))) == pytest.approx(np.hypot(*moved) / THUMBNAIL, abs=0.006)


@pytest.mark.parametrize(("x", "y"), [(63, 50), (67, 50), (60, 53), (54, 44)])
def test_displacements_below_a_thumbnail_pixel_are_told_apart(x: int, y: int) -> None:
    gallery = ReferenceGallery.fit([picture(disc(60, 50)) for _ in range(3)])
    share = np.hypot((x - 60) / 120, (y - 50) / 96)
    assert gallery.displacement(picture(disc(x, y))) == pytest.approx(share, abs=0.4 / THUMBNAIL)
    assert gallery.displacement(picture(disc(60, 50, brightness=0.8))) < 0.005


def test_the_displacement_is_against_most_references() -> None:
    gallery = ReferenceGallery.fit([picture(disc(x, 50)) for x in (84, 60, 60, 60)])
    assert gallery.displacement(picture(disc(60, 50))) < 0.01
    assert gallery.displacement(picture(disc(84, 50))) == pytest.approx(24 / 120, abs=0.01)


@pytest.mark.parametrize(("place", "most"), [((5, 80), 0.01), ((40, 30), 0.03)])  # beside the disc, and over its rim
@pytest.mark.parametrize("colour", [0, 255])
def test_a_local_defect_hardly_displaces_a_picture(place: tuple[int, int], most: float, colour: int) -> None:
    gallery = ReferenceGallery.fit([picture(disc(60, 50)) for _ in range(3)])
    damaged = disc(60, 50)
    damaged[place[0] : place[0] + 20, place[1] : place[1] + 25] = colour  # 4 % of the picture
    assert gallery.displacement(picture(damaged)) < most


def test_displacements_that_fit_equally_well_count_as_none() -> None:
    plain = np.full((48, 48, 3), 90, dtype=np.uint8)
    assert ReferenceGallery.fit([picture(plain)]).displacement(picture(plain)) == 0.0
    stripes = plain.copy()
    stripes[:, ::8] = 200  # a strip without end, which fits wherever it is moved along itself
    gallery = ReferenceGallery.fit([picture(stripes)])
    assert gallery.displacement(picture(stripes)) == 0.0


def test_a_displacement_beyond_the_reach_stays_in_the_range() -> None:
    gallery = ReferenceGallery.fit([picture(disc(20, 20))])
    assert 0.1 < gallery.displacement(picture(disc(100, 80))) <= (REACH + 0.5) * np.sqrt(2) / THUMBNAIL


def test_pictures_are_kept_readable_and_not_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "LONG_SIDE", 100)
    sizes = {(96, 120): (100, 80), (300, 60): (20, 100), (40, 50): (50, 40)}
    gallery = ReferenceGallery.fit([picture(disc(20, 20, size)) for size in sizes])
    for (size, expected), data in zip(sizes.items(), gallery.pictures.values(), strict=True):
        kept = Image.open(io.BytesIO(data))
        assert (kept.format, kept.size) == ("JPEG", expected)
        reduced = Image.fromarray(disc(20, 20, size)).resize(expected, Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(kept, dtype=float) - np.asarray(reduced, dtype=float)).mean() < 3


@pytest.mark.parametrize(("n", "kept"), [(1, 1), (5, 5), (LARGEST, LARGEST), (LARGEST + 1, LARGEST), (999, LARGEST)])
def test_many_references_are_thinned_evenly(n: int, kept: int) -> None:
    images = [picture(np.full((8, 8, 3), i % 251, dtype=np.uint8)) for i in range(n)]
    gallery = ReferenceGallery.fit(images)
    assert len(gallery.pictures) == len(gallery.thumbnails) == kept
    shades = [int(np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0]) for data in gallery.pictures.values()]
    places = np.linspace(0, n - 1, kept).round().astype(int)
    assert shades == [int(i) % 251 for i in places]


def test_ids_keep_their_order_when_sorted_as_files_are() -> None:
    gallery = ReferenceGallery.fit([picture(disc(30 + i, 40)) for i in range(12)])
    assert sorted(gallery.pictures) == list(gallery.pictures)
    again = ReferenceGallery(gallery.thumbnails, dict(sorted(gallery.pictures.items())))
    assert again.nearest(picture(disc(37, 40)))[0].reference_id == "ref-008"
