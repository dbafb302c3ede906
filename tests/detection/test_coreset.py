"""The fast greedy choice is the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from explainvad.detection import coreset
from explainvad.detection.coreset import greedy_k_centre
from explainvad.detection.lower_bound import DIMENSION, LowerBound


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plainly(rows: Tensor, count: int, first: int) -> list[int]:
    """Farthest point next, distances written out."""
    picked = [first]
    distance = (rows - rows[first]).norm(dim=1)
    while len(picked) < count:
        picked.append(int(distance.argmax()))
        distance = torch.minimum(distance, (rows - rows[picked[-1]]).norm(dim=1))
    return picked


def radius(rows: Tensor, picked: Tensor) -> float:
    return float(torch.cdist(rows, rows[picked]).min(1).values.max())


@pytest.mark.parametrize(("n", "d", "count"), [(60, 3, 59), (200, 16, 40), (300, 128, 25), (2, 5, 1)])
def test_picks_equal_a_plain_implementation(n: int, d: int, count: int) -> None:
    rows = torch.randn(n, d, generator=generator(1), dtype=torch.float64) + 3
    picked = greedy_k_centre(rows.float(), count, generator(2))
    assert picked.dtype == torch.int64
    assert picked.tolist() == plainly(rows, count, int(picked[0]))


def test_the_seed_point_is_a_member_and_drawn_at_random() -> None:
    rows = torch.randn(50, 4, generator=generator(1))
    firsts = {int(greedy_k_centre(rows, 5, generator(seed))[0]) for seed in range(60)}
    assert len(firsts) > 25
    for seed in range(5):
        picked = greedy_k_centre(rows, 50 - 1, generator(seed)).tolist()
        assert len(set(picked)) == 49


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_no_row_is_picked_twice_even_when_all_are_equal(offset: float) -> None:
    rows = torch.randn(4, 64, generator=generator(1)).repeat_interleave(25, 0) + offset
    picked = greedy_k_centre(rows, 60, generator()).tolist()
    assert len(set(picked)) == 60
    assert {p // 25 for p in picked[:4]} == {0, 1, 2, 3}  # each kind once before any twice


def test_asking_for_all_rows_or_more_gives_all() -> None:
    rows = torch.randn(7, 3)
    for count in (7, 8, 1000):
        assert greedy_k_centre(rows, count, generator()).tolist() == list(range(7))


def test_the_same_generator_gives_the_same_rows() -> None:
    rows = torch.randn(200, 300, generator=generator(1))
    assert torch.equal(greedy_k_centre(rows, 30, generator(3)), greedy_k_centre(rows, 30, generator(3)))


def test_the_projection_keeps_the_cover_tight() -> None:
    rows = torch.randn(400, 512, generator=generator(1)) * torch.logspace(0, -2, 512)
    picked = greedy_k_centre(rows, 60, generator(2))
    exact = torch.tensor(plainly(rows, 60, int(picked[0])))
    assert radius(rows, picked) <= 1.1 * radius(rows, exact)
    assert radius(rows, picked) < radius(rows, torch.randperm(400, generator=generator(3))[:60])


def test_rows_in_half_precision_and_far_from_the_origin() -> None:
    rows = torch.randn(100, 8, generator=generator(1))
    far = greedy_k_centre(rows + 1000, 20, generator(2))
    assert radius(rows, far) <= 1.05 * radius(rows, greedy_k_centre(rows, 20, generator(2)))
    assert len(greedy_k_centre(rows.half(), 20, generator(2)).unique()) == 20


# --- Lazy picks, in blocks


@pytest.mark.parametrize("block", [1, 2, 7, 64, 399])
@pytest.mark.parametrize("elements", [1, 64, 1 << 19])
def test_blocks_and_chunks_change_no_pick(block: int, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "BLOCK", block)
    monkeypatch.setattr(coreset, "CHUNK_ELEMENTS", elements)
    rows = torch.randn(400, 5, generator=generator(1)) ** 3  # outliers first, then a crowd
    picked = greedy_k_centre(rows, 120, generator(2))
    assert picked.tolist() == plainly(rows.double(), 120, int(picked[0]))


@pytest.mark.parametrize("burst", [1, 3, 1000])
def test_bursts_change_no_pick(burst: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "BLOCK", 50)
    monkeypatch.setattr(coreset, "BURST", burst)
    rows = torch.randn(300, 4, generator=generator(1))
    picked = greedy_k_centre(rows, 90, generator(2))
    assert picked.tolist() == plainly(rows.double(), 90, int(picked[0]))


def test_a_clump_of_far_rows_does_not_fill_the_coreset(monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates of a block lie together: one pick makes them all near."""
    monkeypatch.setattr(coreset, "BLOCK", 40)
    rows = torch.randn(300, 6, generator=generator(1))
    rows[:60] = 1e-3 * rows[:60] + 100
    picked = greedy_k_centre(rows, 30, generator(2))
    assert int((picked < 60).sum()) == 1
    assert picked.tolist() == plainly(rows.double(), 30, int(picked[0]))


# --- Long rows, by way of a bound


def long_rows(count: int, seed: int, d: int = 300, rank: int = 80) -> Tensor:
    """Few directions with most of the variance, as features have, and a little noise in all."""
    few = torch.randn(count, rank, generator=generator(seed)) * torch.logspace(0, -2, rank)
    spread = torch.randn(rank, d, generator=generator(seed + 1))
    return few @ spread + 0.02 * torch.randn(count, d, generator=generator(seed + 2)) + 4


def meetings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records how many full distances are computed one by one."""
    seen: list[int] = []
    meet = coreset._Space._meet

    def recorded(self: coreset._Space, nearest: Tensor, rows: Tensor, picks: Tensor) -> None:
        seen.append(len(rows))
        meet(self, nearest, rows, picks)

    monkeypatch.setattr(coreset._Space, "_meet", recorded)
    return seen


@pytest.mark.parametrize("half", [False, True])
def test_without_a_projection_picks_are_exact_in_all_dimensions(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "BLOCK", 256)
    seen = meetings(monkeypatch)
    rows = long_rows(1000, 1)
    rows = rows.half() if half else rows
    picked = greedy_k_centre(rows, 250, generator(2), projection=300)
    assert picked.tolist() == plainly(rows.double(), 250, int(picked[0]))
    # the bound was used, and let few through
    assert 0 < sum(seen) < 1000 * 250 / 20


@pytest.mark.parametrize("gathered", [1, 64, 1 << 30])  # one by one; where it pays; all in a matrix product
@pytest.mark.parametrize("noise", [0, 1])  # a tight bound; one whose least value misleads at times
def test_distances_to_new_picks_in_any_parts(gathered: int, noise: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "GATHERED", gathered)
    monkeypatch.setattr(coreset, "CHUNK_ELEMENTS", 2500)
    monkeypatch.setattr(coreset, "WIDE_ELEMENTS", 60_000)
    rows = long_rows(500, 1) + noise * torch.randn(500, 300, generator=generator(7))
    old, new = torch.arange(0, 20), torch.arange(30, 130)
    exact = torch.cdist(rows.double(), rows.double()).square()
    nearest = exact[:, old].amin(1).float()
    coreset._Space(rows).approach(nearest, new)
    expected = torch.minimum(exact[:, old].amin(1), exact[:, new].amin(1))
    expected[new] = -torch.inf
    torch.testing.assert_close(nearest.double(), expected, rtol=1e-4, atol=1e-4)


def test_rows_without_structure_are_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "BLOCK", 100)
    rows = torch.randn(600, 300, generator=generator(1))
    picked = greedy_k_centre(rows, 150, generator(2), projection=300)
    assert picked.tolist() == plainly(rows.double(), 150, int(picked[0]))


def test_a_bound_is_never_above_the_distance() -> None:
    rows = torch.cat((long_rows(200, 1), torch.randn(100, 300, generator=generator(5)), 50 + long_rows(50, 9)))
    short = LowerBound.fit(rows[:150]).of(rows)
    assert short.shape == (350, DIMENSION + 1) and short.dtype == torch.float32
    bound, exact = torch.cdist(short.double(), short.double()), torch.cdist(rows.double(), rows.double())
    assert (bound <= exact + 1e-3 * rows.norm(dim=1).max()).all()
    off = ~torch.eye(200, dtype=torch.bool)
    assert (bound[:200, :200] / exact[:200, :200])[off].mean() > 0.9  # rows like those that it was fitted to
    # the residual's length is part of it: rows that differ in nothing else are told apart
    mean, basis = torch.zeros(300), torch.eye(300)[:, :DIMENSION]
    ends = torch.zeros(2, 300)
    ends[1, -1] = 3
    assert LowerBound(mean, basis).of(ends)[:, -1].tolist() == [0, 3]


# --- The guarantee


@pytest.mark.parametrize("seed", range(5))
def test_the_radius_is_at_most_twice_the_least(seed: int) -> None:
    """Gonzalez 1985: rows around k places, each within 1 of one: k centres reach all within 2."""
    places = torch.randn(12, 8, generator=generator(seed)) * 5
    around = torch.nn.functional.normalize(torch.randn(12, 30, 8, generator=generator(seed + 1)), dim=2)
    rows = (places[:, None] + around * torch.rand(12, 30, 1, generator=generator(seed + 2))).reshape(-1, 8)
    picked = greedy_k_centre(rows, 12, generator(seed))
    assert radius(rows, picked) <= 2 + 1e-4


def test_refusals() -> None:
    rows = torch.randn(20, 3, generator=generator(1))
    with pytest.raises(ValueError, match="at least one row, got count = 0"):
        greedy_k_centre(rows, 0, generator())
    rows[3, 1] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        greedy_k_centre(rows, 5, generator())
