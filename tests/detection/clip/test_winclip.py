"""WinCLIP against the paper's formulas, written out patch by patch, and its promises as a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from patterned import normal_pictures, pattern, picture
from tiny_models import CLIP

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.encoder import Encoding
from explainvad.detection.clip.prompts import PromptConfig
from explainvad.detection.clip.winclip import MEMBERS, WinCLIP, WinCLIPOptions
from explainvad.detection.frames import to_frame
from explainvad.errors import ConfigError, NotFittedError, UsageError
from explainvad.types import ImageScore, InspectionImage

PROMPTS = PromptConfig(
    object="weave",
    normal_states=("{}", "clean {}", "even {}"),
    anomalous_states=("torn {}", "{} with a hole"),
    templates=("a photo of a {}.", "a dark photo of the {}.", "a {}"),
)


def scorer(backbones: Backbones, **options: Any) -> WinCLIP:
    return WinCLIP(WinCLIPOptions(**{"backbone": CLIP, "prompts": PROMPTS, "shots": 0} | options), backbones)


def fitted(backbones: Backbones, count: int = 4, **options: Any) -> WinCLIP:
    made = scorer(backbones, **options)
    made.fit(normal_pictures(count), seed=0)
    return made


def one(made: WinCLIP, image: InspectionImage) -> ImageScore:
    return made.score([image])[0]


def covering(k: int, row: int, col: int) -> list[int]:
    """Numbers of the k x k windows over a patch of a 15 x 15 grid."""
    side = 16 - k
    tops = range(max(0, row - k + 1), min(row, side - 1) + 1)
    lefts = range(max(0, col - k + 1), min(col, side - 1) + 1)
    return [top * side + left for top in tops for left in lefts]


def text_score(made: WinCLIP, row: torch.Tensor) -> float:
    """Equation 1, by softmax."""
    texts = made.arrays["phrases"]
    normal = [phrase.anomalous is False for phrase in made.phrases]
    means = [texts[torch.tensor(normal)].mean(0), texts[~torch.tensor(normal)].mean(0)]
    cosines = torch.stack([row @ mean / mean.norm() for mean in means])
    return float((cosines / 0.07).softmax(0)[1])


def zero_shot_map(made: WinCLIP, encoding: Encoding) -> np.ndarray[Any, Any]:
    image = text_score(made, encoding.image[0])
    scores = {k: [text_score(made, row) for row in encoding.windows[k][0]] for k in (2, 3)}
    grid = np.empty((15, 15))
    for row, col in np.ndindex(15, 15):
        by_scale = [image]
        for k, of_windows in scores.items():
            windows = covering(k, row, col)
            by_scale.append(len(windows) / sum(1 / of_windows[w] for w in windows))
        grid[row, col] = 3 / sum(1 / s for s in by_scale)
    return grid


def association_map(encoding: Encoding, references: Sequence[Encoding]) -> np.ndarray[Any, Any]:
    def distances(rows: torch.Tensor, pools: list[torch.Tensor]) -> list[float]:
        return [(1 - float((torch.cat(pools) @ row).max())) / 2 for row in rows]

    tokens = distances(encoding.tokens[0], [r.tokens[0] for r in references])
    windows = {k: distances(encoding.windows[k][0], [r.windows[k][0] for r in references]) for k in (2, 3)}
    grid = np.empty((15, 15))
    for row, col in np.ndindex(15, 15):
        by_scale = [tokens[15 * row + col]]
        for k, of_windows in windows.items():
            covers = covering(k, row, col)
            by_scale.append(len(covers) / sum(1 / of_windows[w] for w in covers))
        grid[row, col] = sum(by_scale) / 3
    return grid


def test_zero_shot_is_the_papers_formula(backbones: Backbones) -> None:
    made, image = fitted(backbones), picture(pattern(7, 90, 90))
    encoding = made.encoder.encode(made.encoder.squares(image), (2, 3))
    score, expected = one(made, image), zero_shot_map(made, encoding)
    np.testing.assert_allclose(
        score.anomaly_map, to_frame(torch.tensor(expected, dtype=torch.float32), 90, 90), rtol=1e-4
    )
    assert score.value == pytest.approx(text_score(made, encoding.image[0]), rel=1e-5)
    assert score.anomaly_map.std() > 1e-3  # or there would be nothing to compare


def test_few_shot_adds_half_of_the_distance_to_references(backbones: Backbones) -> None:
    made, image = fitted(backbones, 2, shots=2), picture(pattern(7, 90, 90))
    encoder = made.encoder
    encoding = encoder.encode(encoder.squares(image), (2, 3))
    references = [encoder.encode(encoder.squares(reference), (2, 3)) for reference in normal_pictures(2)]
    association = association_map(encoding, references)
    expected = (zero_shot_map(made, encoding) + association) / 2
    score = one(made, image)
    np.testing.assert_allclose(
        score.anomaly_map, to_frame(torch.tensor(expected, dtype=torch.float32), 90, 90), atol=1e-4
    )
    assert score.value == pytest.approx((text_score(made, encoding.image[0]) + association.max()) / 2, abs=1e-4)
    np.testing.assert_allclose(
        np.mean([score.evidence[f"reference-{name}"] for name in ("tokens", 2, 3)], axis=0), association, atol=1e-4
    )


def test_a_reference_is_no_distance_from_itself(backbones: Backbones) -> None:
    made = fitted(backbones, 3, shots=3)
    score = one(made, normal_pictures(1, first=1)[0])
    assert max(score.evidence[f"reference-{name}"].max() for name in ("tokens", 2, 3)) < 1e-4
    assert score.value == pytest.approx(score.evidence["text-image"][0] / 2, abs=1e-4)


def test_scores_are_probabilities_and_the_temperature_sharpens_them(backbones: Backbones) -> None:
    image = picture(pattern(5))
    plain, sharp = (one(fitted(backbones, temperature=t), image) for t in (0.07, 0.007))
    for score in (plain, sharp):
        assert score.anomaly_map.min() > 0 and score.anomaly_map.max() < 1
    logit = np.log(plain.value / (1 - plain.value))
    assert sharp.value == pytest.approx(1 / (1 + np.exp(-10 * logit)), rel=1e-4)


def test_the_order_of_words_does_not_matter(backbones: Backbones) -> None:
    turned = PROMPTS.model_copy(
        update={"normal_states": PROMPTS.normal_states[::-1], "templates": PROMPTS.templates[::-1]}
    )
    image = picture(pattern(5))
    one_way, other = (one(fitted(backbones, prompts=prompts), image) for prompts in (PROMPTS, turned))
    np.testing.assert_allclose(one_way.anomaly_map, other.anomaly_map, rtol=1e-5)
    assert one_way.value == pytest.approx(other.value, rel=1e-5)


def test_other_words_give_other_scores(backbones: Backbones) -> None:
    image, swapped = (
        picture(pattern(5)),
        PROMPTS.model_copy(
            update={"normal_states": PROMPTS.anomalous_states, "anomalous_states": PROMPTS.normal_states}
        ),
    )
    values = [one(fitted(backbones, prompts=prompts), image).value for prompts in (PROMPTS, swapped)]
    assert sum(values) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shots", [0, 2])
def test_a_batch_is_its_images_one_by_one(backbones: Backbones, shots: int) -> None:
    made, images = fitted(backbones, shots=shots), [picture(pattern(i, 64, 40 + 30 * i)) for i in range(3)]
    for together, alone in zip(made.score(images), [one(made, image) for image in images], strict=True):
        assert together.value == alone.value
        assert np.array_equal(together.anomaly_map, alone.anomaly_map)
        assert np.array_equal(together.members, alone.members)


def test_a_long_image_is_scored_by_squares(backbones: Backbones) -> None:
    made = fitted(backbones, shots=2)
    pixels = np.concatenate((pattern(3, 120, 120), pattern(4, 120, 120)[:, ::-1]), axis=1)
    whole = one(made, picture(pixels))
    ends = [one(made, picture(np.ascontiguousarray(part))) for part in (pixels[:, :120], pixels[:, 120:])]
    assert whole.anomaly_map.shape == (120, 240)
    assert whole.evidence["text-2"].shape == (15, 30) and whole.member_maps.shape == (MEMBERS, 15, 30)
    squares = whole.evidence["text-image"]
    assert [squares[0], squares[-1]] == pytest.approx([end.evidence["text-image"][0] for end in ends], abs=1e-6)
    # where no other square reaches, the map is that of the square alone
    np.testing.assert_allclose(whole.evidence["text-3"][:, :5], ends[0].evidence["text-3"][:, :5], rtol=1e-5)
    np.testing.assert_allclose(whole.evidence["text-3"][:, -5:], ends[1].evidence["text-3"][:, -5:], rtol=1e-5)
    assert whole.value >= max(end.value for end in ends) - 1e-6


def test_the_aspect_ratio_is_kept(backbones: Backbones) -> None:
    made = fitted(backbones)
    tall = one(made, picture(pattern(3, 200, 60)))
    assert tall.anomaly_map.shape == (200, 60)
    assert tall.evidence["text-2"].shape == (50, 15)


def test_evidence_by_phrase(backbones: Backbones) -> None:
    made, image = fitted(backbones), picture(pattern(6))
    near = one(made, image).evidence["phrases"]
    assert near.shape == (15, 15, 15) and near.dtype == np.float16
    encoding = made.encoder.encode(made.encoder.squares(image), (2, 3))
    cosines = [encoding.windows[k][0] @ made.arrays["phrases"].T for k in (2, 3)]
    for row, col in ((0, 0), (7, 3), (14, 9)):
        rows = torch.cat([cosine[covering(k, row, col)] for k, cosine in zip((2, 3), cosines, strict=True)])
        np.testing.assert_allclose(near[:, row, col], rows.mean(0), atol=2e-3)
    assert made.phrases[0].text == "a photo of a weave."


def test_members_are_other_choices_of_words_and_references(backbones: Backbones) -> None:
    score = one(fitted(backbones, shots=4), picture(pattern(6)))
    assert score.members.shape == (MEMBERS,) and score.member_maps.shape == (MEMBERS, 15, 15)
    assert score.members.std() > 1e-4
    assert abs(score.members[0] - score.value) > 1e-6 and abs(score.members[-1] - score.value) > 1e-6
    assert abs(score.members.mean() - score.value) < 5 * score.members.std()
    single = PromptConfig(normal_states=("good {}",), anomalous_states=("bad {}",), templates=("a {}",))
    alone = one(fitted(backbones, 1, shots=1, prompts=single), picture(pattern(6)))
    np.testing.assert_allclose(alone.members, alone.value, rtol=1e-5)
    # of the same states, other templates
    templates = PromptConfig(**{**single.model_dump(), "templates": PROMPTS.templates})
    assert one(fitted(backbones, 1, prompts=templates), picture(pattern(6))).members.std() > 1e-6
    # of the same words, other references
    drawn = one(fitted(backbones, 4, shots=4, prompts=single), picture(pattern(6)))
    assert drawn.members.min() >= drawn.value - 1e-6 and drawn.members.max() > drawn.value + 1e-6


def test_references_are_spread_over_the_fit_images_which_are_decoded_once(backbones: Backbones) -> None:
    asked: list[int] = []

    class Counted(list[InspectionImage]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    images = Counted(normal_pictures(10))
    made = scorer(backbones, shots=4)
    made.fit(images, seed=0)
    assert made.arrays["owner"].tolist() == [0, 3, 6, 9]
    assert sorted(asked) == list(range(10))
    assert made.facts["references"] == "4 images"


@pytest.mark.parametrize("shots", [0, 3])
def test_state_is_restored_exactly(backbones: Backbones, shots: int) -> None:
    made, image = fitted(backbones, shots=shots), picture(pattern(8, 64, 100))
    arrays, facts = made.state()
    again = scorer(backbones, shots=shots)
    again.load(arrays, facts)
    before, after = one(made, image), one(again, image)
    assert before.value == after.value and np.array_equal(before.anomaly_map, after.anomaly_map)
    assert again.facts == made.facts
    assert all(array.size for array in arrays.values())


def test_the_same_images_give_the_same_arrays(backbones: Backbones) -> None:
    one_fit, other = (fitted(backbones, shots=2).arrays for _ in range(2))
    assert all(torch.equal(one_fit[name], other[name]) for name in one_fit)


def test_a_model_with_other_prompts_is_refused(backbones: Backbones) -> None:
    arrays, facts = fitted(backbones).state()
    renamed = scorer(backbones, prompts=PROMPTS.model_copy(update={"object": "cloth"}))
    with pytest.raises(UsageError, match=r'other prompts than set generic, object "cloth", .*: fit it again'):
        renamed.load(arrays, facts)


def test_without_a_reference_no_score_is_smaller(backbones: Backbones) -> None:
    made = scorer(backbones, shots=3)
    made.separate = True
    made.fit(normal_pictures(5), seed=0)
    assert made.arrays["owner"].tolist() == [0, 2, 4]
    image = picture(pattern(9, 64, 80))
    full = one(made, image)
    for left_out in ([0], [2], [0, 4]):
        less = one(made.without(left_out), image)
        assert less.value >= full.value - 1e-6 and (less.anomaly_map >= full.anomaly_map - 1e-6).all()
    assert one(made.without([1, 3]), image).value == full.value
    itself = normal_pictures(1, first=2)[0]
    assert one(made.without([2]), itself).value > one(made, itself).value
    with pytest.raises(ValueError, match="needs one, but all 3 were left out"):
        made.without([0, 2, 4])


def test_words_alone_are_the_same_without_any_image(backbones: Backbones) -> None:
    made, image = fitted(backbones), picture(pattern(9))
    assert one(made.without([0, 1, 2, 3]), image).value == one(made, image).value


def test_of_few_images_there_are_two_references_so_that_one_can_leave(backbones: Backbones) -> None:
    made = scorer(backbones, shots=1)
    made.separate = True
    made.fit(normal_pictures(4), seed=0)
    assert made.arrays["owner"].tolist() == [0, 3]


def test_further_references(backbones: Backbones) -> None:
    images = normal_pictures(3)
    grown = scorer(backbones, shots=3)
    grown.fit(images[:2], seed=0)
    more = grown.extended(images[2:], seed=0)
    whole = scorer(backbones, shots=3)
    whole.fit(images, seed=0)
    assert more.facts["references"] == "3 images" and grown.facts["references"] == "2 images"
    assert one(more, picture(pattern(9))).value == one(whole, picture(pattern(9))).value
    assert one(more, images[2]).value < one(grown, images[2]).value
    words = fitted(backbones)
    assert one(words.extended(images, seed=0), images[0]).value == one(words, images[0]).value


def test_what_the_card_says(backbones: Backbones) -> None:
    facts = fitted(backbones).card().facts
    assert facts["prompts"].startswith(
        'set generic, object "weave", own normal states and anomalous states and templates'
    )
    assert "15 phrases" in facts["prompts"]
    assert facts["references"] == "none, words alone (zero-shot)"
    same = PromptConfig(normal_states=("{}", "{} "), anomalous_states=(" {}", "  {}"), templates=("a {}.",))
    scorer = fitted(backbones, prompts=same)
    assert scorer.separation is not None
    separation, least, images = scorer.separation
    assert separation < least and images == 4


def test_it_must_be_fitted(backbones: Backbones) -> None:
    with pytest.raises(NotFittedError, match="winclip scorer was used before fit"):
        scorer(backbones).score([picture(pattern(0))])


def test_windows_larger_than_the_grid_are_refused(backbones: Backbones) -> None:
    with pytest.raises(ConfigError, match="sees 15 patches a side, expected scales up to that, got 16"):
        scorer(backbones, scales=(2, 16))
