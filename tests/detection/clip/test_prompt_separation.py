"""Separation of prompts on vectors that are made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from explainvad.detection.clip.prompt_separation import (
    PromptStudy,
    class_mean,
    influence,
    separation,
    state_means,
    text_score,
)
from explainvad.detection.clip.prompts import PromptConfig

X, Y, Z = torch.eye(3)
HALF = (X + Y) / 2**0.5


def rows(*vectors: Tensor) -> Tensor:
    return torch.stack(vectors)


def unit(seed: int, count: int, d: int = 8) -> Tensor:
    vectors = torch.randn(count, d, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_the_text_score_is_a_softmax_over_two_cosines() -> None:
    # e / (1 + e): the cosines differ by one temperature
    score = text_score(torch.tensor(0.20), torch.tensor(0.27), 0.07)
    assert float(score) == pytest.approx(math.e / (1 + math.e), abs=1e-6)
    assert float(text_score(torch.tensor(0.2), torch.tensor(0.2))) == 0.5
    cosines = torch.tensor([0.31, 0.24])
    assert float(text_score(*cosines)) == pytest.approx(float((cosines / 0.07).softmax(0)[1]))


def test_one_kind_is_the_mean_of_unit_vectors() -> None:
    torch.testing.assert_close(class_mean(rows(X, Y)), HALF)


def test_prompts_apart_and_images_on_either_side_and_between() -> None:
    found = separation(rows(X), rows(Y), rows(X, Y, HALF, X))
    assert found.overlap.tolist() == [0, 1, 0.5, 0]
    assert found.margin.tolist() == [-1, 1, 0, -1]
    assert found.distance.tolist() == [1, 1, 0, 1]
    assert found.separation == 1 and not found.domain_gap
    assert found.class_cosine == 0


def test_overlap_counts_pairs_of_prompts() -> None:
    # similarities of the image: normal 0.9 and 0.1, anomalous 0.5 and 0.9: above in one pair of four, one tie
    image = torch.tensor([[1.0, 0.0]])
    normal = torch.tensor([[0.9, 0], [0.1, 0]])
    anomalous = torch.tensor([[0.5, 0], [0.9, 0]])
    assert separation(normal, anomalous, image).overlap.tolist() == [(1 + 1 + 0.5) / 4]


def test_the_same_words_on_both_sides_are_a_domain_gap() -> None:
    texts = unit(0, 5)
    found = separation(texts, texts, unit(1, 9))
    assert found.overlap.tolist() == [0.5] * 9
    assert found.separation == 0 and found.domain_gap
    assert found.class_cosine == pytest.approx(1)


def test_contrast_is_the_spread_of_margins_over_their_error() -> None:
    # similarities to the anomalous prompts: (1, 0) and (-1, 0), to the normal ones nothing. Margins 1/2 and -1/2 have
    # the standard deviation 1/sqrt(2); each has the variance 1/2 over 2 prompts, an error of 1/2.
    found = separation(torch.zeros(2, 2), torch.eye(2), torch.tensor([[1.0, 0], [-1, 0]]))
    assert found.contrast == pytest.approx(2**0.5)
    assert found.says_the_same


def test_what_prompts_say_of_all_images_alike_makes_no_contrast_and_no_error() -> None:
    images = torch.tensor([[1.0, 0, 1], [-1, 0, 1]])
    normal = torch.tensor([[0.0, 0, 0.3], [0, 0, -0.6]])
    anomalous = torch.tensor([[0.5, 0, 0.9], [0.4, 0, -0.2]])
    shifted = separation(normal, anomalous, images)
    plain = separation(normal * torch.tensor([1, 1, 0]), anomalous * torch.tensor([1, 1, 0]), images)
    assert shifted.contrast == pytest.approx(plain.contrast)
    assert shifted.contrast is not None and shifted.contrast > 2 and not shifted.says_the_same


def test_one_image_or_one_prompt_has_no_contrast() -> None:
    assert separation(unit(0, 3), unit(1, 3), unit(2, 1)).contrast is None
    assert separation(unit(0, 1), unit(1, 3), unit(2, 4)).contrast is None
    assert not separation(unit(0, 1), unit(1, 3), unit(2, 4)).says_the_same


def test_the_order_of_phrases_does_not_matter() -> None:
    normal, anomalous, images = unit(0, 6), unit(1, 4), unit(2, 7)
    one = separation(normal, anomalous, images)
    other = separation(normal.flip(0), anomalous[[2, 0, 3, 1]], images)
    torch.testing.assert_close(one.margin, other.margin)
    torch.testing.assert_close(one.overlap, other.overlap)
    assert one.contrast == pytest.approx(other.contrast)


def test_influence_is_what_leaving_a_prompt_out_does() -> None:
    normal, anomalous, images = unit(0, 4), unit(1, 3), unit(2, 5)

    def score(left_out: int | None = None, kind: int = 0) -> Tensor:
        kinds = [normal, anomalous]
        if left_out is not None:
            kinds[kind] = torch.cat((kinds[kind][:left_out], kinds[kind][left_out + 1 :]))
        return text_score(*(images @ class_mean(texts) for texts in kinds))

    of_normal, of_anomalous = influence(normal, anomalous, images)
    for i in range(4):
        assert float(of_normal[i]) == pytest.approx(float((score(i, 0) - score()).abs().max()), abs=1e-6)
    for i in range(3):
        assert float(of_anomalous[i]) == pytest.approx(float((score(i, 1) - score()).abs().max()), abs=1e-6)


def test_the_only_prompt_of_a_kind_matters_wholly() -> None:
    # without the anomalous prompt the cosine of the image to it is 0, as that to the normal one
    assert influence(rows(X), rows(Y), rows(Y))[1].tolist() == pytest.approx(
        [float(torch.sigmoid(torch.tensor(1 / 0.07))) - 0.5]
    )


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_nothing_to_compare_is_refused(empty: int) -> None:
    given = [unit(0, 2), unit(1, 2), unit(2, 2)]
    given[empty] = given[empty][:0]
    name = ("normal", "anomalous", "image")[empty]
    with pytest.raises(ValueError, match=rf"expected {name} embeddings of shape \(n, d\) with n >= 1, got \(0, 8\)"):
        separation(*given)


PROMPTS = PromptConfig(
    object="nut",
    normal_states=("{}", "clean {}"),
    anomalous_states=("rusty {}", "bent {}"),
    templates=("a {}.", "the {}."),
)


def study(images: Tensor) -> PromptStudy:
    """Normal states on X and near it, rusty on Y, bent on Z; both templates alike."""
    near = (20 * X + Z) / 401**0.5
    texts = rows(X, X, near, near, Y, Y, Z, Z)
    return PromptStudy(PROMPTS, texts, images)


def test_states_are_means_over_templates() -> None:
    normal, anomalous = state_means(rows(X, Y, X, X, Y, Z, Z, Z), PROMPTS)
    torch.testing.assert_close(normal, rows(HALF, X))
    torch.testing.assert_close(anomalous, rows((Y + Z) / 2**0.5, Z))


def test_a_study_names_the_states_nearest_to_an_image_and_ranks_images() -> None:
    found = study(rows(X, Y, Z))
    assert (
        found.nearest(0)[0] == "nut"
        and found.nearest(1)[1] == "rusty nut"
        and found.nearest(2) == ("clean nut", "bent nut")
    )
    assert found.scores.argsort().tolist() == [0, 2, 1]
    assert float(found.scores[1]) == pytest.approx(
        float(text_score(Y @ class_mean(found.texts[:4]), torch.tensor(0.5**0.5)))
    )


def test_a_study_knows_which_states_matter() -> None:
    found = study(rows(HALF))
    # leaving "bent" out moves the anomalous mean towards the image, leaving "rusty" out away from it
    assert [name for name, *_ in found.weights[:2]] == ["bent nut", "rusty nut"]
    assert found.idle == ("nut", "clean nut")
    assert [anomalous for _, anomalous, _ in found.weights] == [True, True, False, False]


def test_a_study_warns_where_prompts_do_not_separate() -> None:
    (gap,) = study(rows(HALF)).warnings()
    assert gap.startswith("domain gap: normal and anomalous prompts are about equally near to 1 of 1 images")
    assert "separation 0.25, below 0.3" in gap
    assert study(rows(Y)).warnings() == ()
    alike = unit(3, 1, 3)
    contrast = PromptStudy(PROMPTS, unit(0, 8, 3), alike.expand(3, 3)).warnings()[-1]
    assert contrast.startswith("no contrast") and "agreement 0.0, below 2" in contrast


def test_a_study_as_json() -> None:
    found = study(rows(X, Y)).to_json(["a.png", "b.png"])
    assert [image["file"] for image in found["images"]] == ["a.png", "b.png"]
    assert found["images"][1]["similarities"] == [0, 0, 0, 0, 1, 1, 0, 0]
    assert found["images"][1]["nearest_anomalous"] == "rusty nut"
    assert [phrase["text"] for phrase in found["phrases"]][4] == "a rusty nut."
    assert found["phrases"][4]["similarity"] == 0.5
    assert found["domain_gap"] is False and found["separation"] == 0.5
    # on these two images the score is 0 or 1, and of all states only "rusty" can change that
    assert [state["state"] for state in found["states"] if not state["idle"]] == ["rusty nut"]
