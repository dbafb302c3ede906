"""MuSc on token sets that a hand can compute, and on a tiny transformer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from patterned import defective_picture, pattern, picture
from pydantic import ValidationError
from tiny_models import CNN, VIT
from torch import Tensor

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.musc import MEMBERS, MuSc, MuScOptions, aggregated, interval_mean
from explainvad.errors import ConfigError, NotFittedError, TooFewImagesError
from explainvad.types import ImageScore, InspectionImage

# Two tokens that are opposite, of mean 0 and variance 1, so that normalising an image of them changes nothing
P, Q = torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0])


def named(image: InspectionImage) -> InspectionImage:
    """The picture with the hash of its own pixels."""
    return replace(image, sha256=hashlib.sha256(image.pixels.tobytes()).hexdigest())


def pictures(count: int, first: int = 0, width: int = 64) -> list[InspectionImage]:
    return [named(picture(pattern(seed, 64, width))) for seed in range(first, first + count)]


def scorer(backbones: Backbones, **options: Any) -> MuSc:
    return MuSc(MuScOptions(**{"backbone": VIT, "resolution": 64, "layers": (0, 2)} | options), backbones)


def one(made: MuSc, image: InspectionImage) -> ImageScore:
    return made.score([image])[0]


class Tokens:
    """An extractor that answers with the tokens written on its images: P is white, Q black; one row."""

    name, weights, facts = "tokens", "by hand", {"frame": "one row"}

    def request(self, layers: Sequence[int]) -> None:
        pass

    def levels(self, image: InspectionImage, layers: Sequence[int]) -> list[Tensor]:
        tokens = [P if white else Q for white in image.pixels[0, :, 0]]
        return [torch.stack(tokens, dim=1)[:, None] for _ in layers]


def written(word: str) -> InspectionImage:
    pixels = np.zeros((1, len(word), 3), np.uint8)
    pixels[0, [letter == "p" for letter in word]] = 255
    return named(replace(picture(pixels), image_id=word))


def by_hand(backbones: Backbones, words: Sequence[str], **options: Any) -> MuSc:
    made = scorer(backbones, **{"layers": (0,), "neighbourhoods": (1,)} | options)
    made.extractor = Tokens()  # type: ignore[assignment]
    made.fit([written(word) for word in words], seed=0)
    return made


def test_a_token_without_likeness_is_far_and_one_with_likeness_is_not(backbones: Backbones) -> None:
    made = by_hand(backbones, ["pp", "ppp", "pppp"])
    score = one(made, written("pqp"))
    np.testing.assert_allclose(score.anomaly_map, [[0, 2, 0]], atol=1e-3)  # opposite unit vectors are 2 apart
    assert score.value == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.3, 0), (0.5, 1), (0.75, 4 / 3), (1, 6 / 4)],
    ids=["the nearest of four", "0 and 2", "0, 2, 2", "0, 2, 2, 2"],
)
def test_the_lowest_share_of_images_is_averaged(backbones: Backbones, share: float, expected: float) -> None:
    made = by_hand(backbones, ["pp", "ppp", "qp", "pppp"], share=share)
    assert one(made, written("q")).value == pytest.approx(expected, abs=1e-3)


def test_an_image_of_the_lot_is_not_compared_with_itself(backbones: Backbones) -> None:
    made = by_hand(backbones, ["pq", "pp", "ppp"])
    assert one(made, written("pq")).value == pytest.approx(2, abs=1e-3)
    twice = by_hand(backbones, ["pq", "pq", "pp", "ppp"])
    assert one(twice, written("pq")).value == pytest.approx(2, abs=1e-3)  # nor with a copy
    assert one(made, written("qp")).value == pytest.approx(0, abs=1e-3)


def test_the_lot_decides(backbones: Backbones) -> None:
    made = by_hand(backbones, ["pp", "ppp"])
    lot = made.with_lot([written(word) for word in ("qq", "qqq", "p")])
    assert one(made, written("q")).value == pytest.approx(2, abs=1e-3)
    assert one(lot, written("q")).value == pytest.approx(0, abs=1e-3)
    assert lot.facts["compared with"] == "3 of 3 images of the lot"
    assert made.facts["compared with"] == "2 of 2 reference images"
    assert MuSc.reads_lot and not MuSc.few_images


def test_neighbourhoods_are_averaged_and_have_unit_length() -> None:
    tokens = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 3]])
    assert torch.equal(aggregated(tokens, (1, 4), 1), torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1]]))
    rows = aggregated(tokens, (1, 4), 3)
    expected = [[0.5**0.5, 0.5**0.5], [1 / 5**0.5, 2 / 5**0.5], [0, 1], [0, 1]]
    torch.testing.assert_close(rows, torch.tensor(expected))
    square = aggregated(tokens, (2, 2), 3)  # all four are neighbours of each
    torch.testing.assert_close(square, torch.tensor([[1.0, 5.0]] * 4) / 26**0.5)


def test_the_interval_has_one_image_at_least() -> None:
    nearest = torch.tensor([[3.0, 1], [1, 5], [2, 4]])
    assert interval_mean(nearest, 0.3).tolist() == [1, 1]
    assert interval_mean(nearest, 0.7).tolist() == [1.5, 2.5]
    assert interval_mean(nearest, 1).tolist() == pytest.approx([2, 10 / 3])
    assert torch.equal(interval_mean(nearest[None], 0.7)[0], interval_mean(nearest, 0.7))


def test_layers_and_neighbourhoods_are_averaged(backbones: Backbones) -> None:
    lot, image = pictures(3), pictures(1, first=9)[0]

    def grid(**options: Any) -> np.ndarray[Any, Any]:
        made = scorer(backbones, **options)
        made.fit(lot, seed=0)
        return one(made, image).anomaly_map

    parts = [grid(layers=(layer,), neighbourhoods=(r,)) for layer in (0, 2) for r in (1, 3)]
    np.testing.assert_allclose(grid(layers=(0, 2), neighbourhoods=(1, 3)), np.mean(parts, axis=0), atol=1e-5)
    assert np.ptp([part.mean() for part in parts]) > 1e-3


def test_scores_are_distances_between_normalised_tokens(backbones: Backbones) -> None:
    lot, image = pictures(2), pictures(1, first=9)[0]
    made = scorer(backbones, layers=(1,), neighbourhoods=(1,), share=1)
    made.fit(lot, seed=0)

    def tokens(of: InspectionImage) -> Tensor:
        (level,) = made.extractor.levels(of, [1])
        rows = ((level - level.mean()) / level.var(unbiased=False).sqrt()).flatten(1).T
        return rows / rows.norm(dim=1, keepdim=True)

    expected = torch.stack([torch.cdist(tokens(image), tokens(other)).amin(1) for other in lot]).mean(0)
    assert one(made, image).value == pytest.approx(float(expected.max()), abs=2e-3)


def test_a_defect_that_no_other_image_has_stands_out(backbones: Backbones) -> None:
    defect = named(defective_picture(20))
    lot = [*pictures(8), defect]
    scores = scorer(backbones, images=9)
    scores.fit(pictures(3, first=50), seed=0)
    values = [one(scores.with_lot(lot), image).value for image in lot]
    assert int(np.argmax(values)) == 8


def test_images_of_other_sizes(backbones: Backbones) -> None:
    made = scorer(backbones)
    made.fit([*pictures(2), *pictures(1, first=5, width=128)], seed=0)
    assert made.arrays["grids"].tolist() == [[8, 8], [8, 8], [8, 16]]
    score = one(made, pictures(1, first=6, width=96)[0])
    assert score.anomaly_map.shape == (64, 96) and score.member_maps.shape == (MEMBERS, 8, 12)
    assert one(made, pictures(1, first=5, width=128)[0]).value > 0


def test_the_lot_is_bounded_and_evenly_spread(backbones: Backbones) -> None:
    made, lot = scorer(backbones, images=4), pictures(10)
    made.fit(lot, seed=0)
    kept = [bytes(row).hex() for row in made.arrays["sha256"].numpy()]
    assert kept == [lot[i].sha256 for i in (0, 3, 6, 9)]
    assert made.arrays["layer-0"].shape == (4 * 64, 32) and made.arrays["layer-0"].dtype == torch.float16
    assert made.facts["compared with"] == "4 of 10 reference images"


def test_likeness_averages_the_scores_of_similar_images(backbones: Backbones) -> None:
    # scores: pp, ppp 0 (like each other), qq 2. Mean last tokens: P of the first two, Q of the last
    made = by_hand(backbones, ["pp", "ppp", "qq"], share=0.5, likeness=(1, 2))
    assert made.arrays["scores"].tolist() == pytest.approx([0, 0, 2], abs=1e-3)
    assert made.arrays["whole"][:, 0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, -(0.5**0.5)])
    # alone 2; with the image most like it, qq of likeness 1, (2 * 1 + 2 * 1) / 2; its own score against pp, ppp, qq
    plain = by_hand(backbones, ["pp", "ppp", "qq"], share=1)
    own = one(plain, written("qqqq")).value
    assert own == pytest.approx(4 / 3, abs=1e-3)
    averaged = by_hand(backbones, ["pp", "ppp", "qq"], share=1, likeness=(1, 2))
    of_qq = float(averaged.arrays["scores"][2])
    assert of_qq == pytest.approx(2, abs=1e-3)
    assert one(averaged, written("qqqq")).value == pytest.approx((own + (own + of_qq) / 2) / 2, abs=1e-3)


def test_an_unlike_image_has_no_weight(backbones: Backbones) -> None:
    made = by_hand(backbones, ["pp", "ppp"], likeness=(3,))
    assert one(made, written("q")).value == pytest.approx(2, abs=1e-3)


def test_state_is_restored_exactly(backbones: Backbones) -> None:
    image = pictures(1, first=9)[0]
    made = scorer(backbones, likeness=(1, 2))
    made.fit(pictures(3), seed=0)
    again = scorer(backbones, likeness=(1, 2))
    again.load(*made.state())
    before, after = one(made, image), one(again, image)
    assert before.value == after.value and np.array_equal(before.anomaly_map, after.anomaly_map)
    assert again.facts == made.facts


def test_members_are_resampled_lots(backbones: Backbones) -> None:
    made = scorer(backbones)
    made.fit(pictures(6), seed=0)
    score = one(made, pictures(1, first=9)[0])
    assert score.members.shape == (MEMBERS,) and score.members.std() > 0
    assert score.members.min() >= score.value * 0.8
    np.testing.assert_allclose(score.members, score.member_maps.max((1, 2)))


def test_the_card_says_what_its_p_values_are_worth(backbones: Backbones) -> None:
    made = scorer(backbones)
    made.fit(pictures(3), seed=0)
    facts = made.card().facts
    assert "depends on the other images of the lot" in facts["dependence"]
    assert "p-values are nominal" in facts["dependence"] and "where a defect is frequent" in facts["dependence"]


@pytest.mark.parametrize("lot", [1, 2])
def test_one_image_has_nothing_to_be_compared_with(backbones: Backbones, lot: int) -> None:
    with pytest.raises(TooFewImagesError, match="expected 2 different ones, got fewer"):
        scorer(backbones).fit(pictures(1) * lot, seed=0)


def test_layers_on_different_grids_are_refused(backbones: Backbones) -> None:
    with pytest.raises(ConfigError, match=f"layers on one grid, those of {CNN} differ: take a plain ViT"):
        scorer(backbones, backbone=CNN, layers=(1, 2)).fit(pictures(2), seed=0)


def test_an_even_neighbourhood_has_no_middle() -> None:
    with pytest.raises(ValidationError, match="expected odd sides"):
        MuScOptions(neighbourhoods=(1, 2))


def test_it_must_be_fitted(backbones: Backbones) -> None:
    with pytest.raises(NotFittedError, match="musc scorer was used before fit"):
        scorer(backbones).score(pictures(1))
