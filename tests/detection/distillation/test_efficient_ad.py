"""EfficientAD with small networks: what it learns, how its maps are scaled, what it keeps and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture
from PIL import Image
from safetensors.torch import save_file
from small_networks import make_small
from tiny_models import CNN, tiny_backbones

from explainvad.detection.backbones import Backbones
from explainvad.detection.distillation.efficient_ad import EfficientAD, EfficientADOptions, enlarged
from explainvad.detection.distillation.pdn import PatchDescription
from explainvad.detection.distillation.teacher import pixels_of
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.errors import NotFittedError, WeightsError
from explainvad.types import InspectionImage

TINY = {"resolution": 64, "side": 48, "channels": 6, "teacher": CNN, "teacher_layers": (1, 2), "distill_steps": 5}
IMAGES = 24


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield


def scorer(backbones: Backbones, **options: Any) -> EfficientAD:
    return EfficientAD(EfficientADOptions(**{**TINY, "steps": 3, **options}), backbones)


class Once(Sequence[InspectionImage]):
    """Images that may be decoded once each."""

    def __init__(self, images: Sequence[InspectionImage]) -> None:
        self.images, self.read = images, [0] * len(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        self.read[index] += 1
        return self.images[index]

    def __iter__(self) -> Iterator[InspectionImage]:
        raise AssertionError("images are asked for one by one")


@pytest.fixture(scope="module")
def fitted(weight_store: Path) -> EfficientAD:
    made = scorer(tiny_backbones(weight_store), steps=150, distill_steps=40, learning_rate=3e-3)
    images = Once(normal_pictures(IMAGES))
    made.fit(images, seed=0)
    assert max(images.read) <= 2 and sum(images.read) <= IMAGES + 1  # the first one twice
    return made


HELD = [0, IMAGES - 1]  # a tenth, evenly spaced


def test_held_out_normal_images_scale_both_maps(fitted: EfficientAD) -> None:
    images = normal_pictures(IMAGES)
    maps = [
        enlarged(torch.from_numpy(s.evidence["branches"]), (64, 64)) for s in fitted.score([images[i] for i in HELD])
    ]
    pooled = torch.stack(maps, dim=1).flatten(1).numpy()
    np.testing.assert_allclose(np.quantile(pooled, 0.9, axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.quantile(pooled, 0.995, axis=1), 0.1, atol=1e-5)
    assert fitted.facts["scaling"] == "quantiles of 2 images kept out of the training"
    assert f"from {IMAGES - 2} images" in fitted.facts["training"]


def test_the_map_is_the_mean_of_both_and_its_maximum_is_the_score(fitted: EfficientAD) -> None:
    (score,) = fitted.score([defective_picture(40)])
    both = torch.from_numpy(score.evidence["branches"])
    assert both.shape == (2, 8, 8)
    padded = both.mean(0).numpy().repeat([5, 1, 1, 1, 1, 1, 1, 5], axis=0).repeat([5, 1, 1, 1, 1, 1, 1, 5], axis=1)
    expected = F.interpolate(torch.from_numpy(padded)[None, None], size=(64, 64), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(score.anomaly_map, expected, rtol=1e-5, atol=1e-6)
    assert score.value == pytest.approx(float(expected.max()), rel=1e-5)


def test_a_defect_stands_out_where_it_is(fitted: EfficientAD) -> None:
    scores = fitted.score([defective_picture(seed) for seed in range(50, 54)])
    normal = max(s.value for s in fitted.score(normal_pictures(6, first=60)))
    assert min(s.value for s in scores) > normal
    for score in scores:
        y, x = np.unravel_index(score.anomaly_map.argmax(), (64, 64))
        # a description is of 33 px, so its centre may lie beside the defect
        assert abs(y - (SQUARE[0].start + 7)) <= 16 and abs(x - (SQUARE[1].start + 7)) <= 16


def test_members_are_passes_of_the_autoencoder(fitted: EfficientAD) -> None:
    image = defective_picture(41)
    first, again = fitted.score([image, image])
    assert first.member_maps.shape == (4, 16, 16) and len(set(first.members.tolist())) == 4
    assert np.array_equal(first.member_maps, again.member_maps)
    np.testing.assert_allclose(first.members, first.member_maps.max((1, 2)), rtol=1e-6)
    # the map of the autoencoder is another in each pass, scaled as it is; the teacher's stays
    pixels = pixels_of(torch.from_numpy(image.pixels).permute(2, 0, 1), "cpu")
    with torch.inference_mode():
        sampled = fitted._networks.disagreement(pixels, passes=4)[1].numpy()
    low, high = fitted.arrays["quantiles"][1].tolist()
    expected = (first.evidence["branches"][0] + 0.1 * (sampled - low) / (high - low)) / 2
    np.testing.assert_allclose(first.member_maps[:, 4:-4, 4:-4], expected, rtol=1e-4, atol=1e-5)


def test_an_image_of_another_shape_keeps_its_own_frame(fitted: EfficientAD) -> None:
    (score,) = fitted.score([picture(pattern(5, 80, 130))])
    assert score.anomaly_map.shape == (80, 130)
    assert score.evidence["branches"].shape == (2, 8, 18) and score.member_maps.shape == (4, 16, 26)


def test_the_border_takes_the_nearest_description() -> None:
    maps = torch.rand(2, 8, 12)
    whole = enlarged(maps, (64, 80))
    assert torch.equal(whole[:, 0, 0], maps[:, 0, 0]) and torch.equal(whole[:, -1, -1], maps[:, -1, -1])
    torch.testing.assert_close(enlarged(torch.ones(1, 3, 3), (44, 44)), torch.ones(1, 44, 44))
    # description (2, 3) is of the cell in row 6 and column 7 of the frame, whose middle is at pixel 25.5, 29.5
    peak = torch.zeros(1, 8, 12)
    peak[0, 2, 3] = 1
    y, x = torch.nonzero(enlarged(peak, (64, 80))[0] > 0.7).float().mean(0).tolist()
    assert (y, x) == (25.5, 29.5)


# --- What is kept and said


def test_a_fitted_scorer_is_its_state_and_needs_no_backbone(fitted: EfficientAD, tmp_path: Path) -> None:
    arrays, facts = fitted.state()
    again = EfficientAD(fitted.options, Backbones(WeightStore(tmp_path / "empty"), bf16=False))
    with pytest.raises(NotFittedError):
        again.score(normal_pictures(1))
    before = torch.get_rng_state()
    again.load(arrays, facts)
    assert torch.equal(torch.get_rng_state(), before)
    images = [defective_picture(42), *normal_pictures(2, first=70)]
    for a, b in zip(fitted.score(images), again.score(images), strict=True):
        assert (a.value, a.scorer) == (b.value, "efficient-ad")
        assert np.array_equal(a.anomaly_map, b.anomaly_map) and np.array_equal(a.members, b.members)
    assert asdict(again.card()) == asdict(fitted.card())
    assert not fitted.backbones.used() and not again.backbones.used()


def test_weights_that_do_not_fit_are_refused(fitted: EfficientAD) -> None:
    arrays, facts = fitted.state()
    for wrong in ({k: v for k, v in arrays.items() if k != "student.conv2.bias"}, {**arrays, "more": np.zeros(1)}):
        with pytest.raises(RuntimeError, match=r"student.conv2.bias|more"):
            EfficientAD(fitted.options, fitted.backbones).load(wrong, facts)


def test_the_same_images_and_seed_give_the_same_arrays(backbones: Backbones) -> None:
    def arrays(seed: int) -> dict[str, np.ndarray]:
        made = scorer(backbones)
        made.fit(normal_pictures(5), seed)
        return made.state()[0]

    first, again, other = arrays(0), arrays(0), arrays(1)
    assert first.keys() == again.keys() and all(np.array_equal(first[k], again[k]) for k in first)
    assert not np.array_equal(first["student.conv1.weight"], other["student.conv1.weight"])


def test_facts_say_where_the_teacher_comes_from_and_what_is_missing(fitted: EfficientAD) -> None:
    assert fitted.facts["teacher"].startswith(f"distilled from {CNN} on 22 reference images in 40 steps")
    assert "of the variance" in fitted.weights
    assert fitted.facts["penalty"].startswith("none:")
    assert "16 px along its border take the nearest score" in fitted.facts["frame"]


def store_teacher(root: Path, channels: int) -> PatchDescription:
    """A locked teacher of random weights, as `explainvad models pull` leaves it."""
    folder = root / "pdn-small"
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    teacher = PatchDescription("small", channels)
    config = {"architecture": "pdn-small", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(teacher.state_dict(), folder / "model.safetensors")
    bring(WeightStore(root), "pdn-small", folder)
    return teacher


def test_a_teacher_in_the_store_is_taken_as_it_is(tmp_path: Path) -> None:
    teacher = store_teacher(tmp_path, channels=6)
    made, frame = scorer(Backbones(WeightStore(tmp_path), bf16=False)), normal_pictures(1, first=9)[0]
    made.fit(normal_pictures(5), seed=0)
    assert made.facts["teacher"].startswith("pdn-small")
    assert "sha256" in made.facts["teacher"]
    arrays = made.state()[0]
    assert np.array_equal(arrays["teacher.conv2.weight"], teacher.state_dict()["conv2.weight"].numpy())
    # the same but for the unit of each channel
    pixels = pixels_of(torch.from_numpy(frame.pixels).permute(2, 0, 1), "cpu")
    with torch.no_grad():
        raw, standard = teacher(pixels)[0].flatten(1), made._networks.teacher(pixels)[0].flatten(1)
    for a, b in zip(raw, standard, strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.999 and 0.2 < float(b.std()) < 5


def test_a_teacher_of_another_shape_is_refused(tmp_path: Path) -> None:
    store_teacher(tmp_path, channels=5)
    with pytest.raises(WeightsError, match=r"pdn-small: expected conv4.* of shape \(6"):
        scorer(Backbones(WeightStore(tmp_path), bf16=False)).fit(normal_pictures(3), seed=0)


def test_without_a_teacher_or_a_backbone_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="models pull wide-resnet-50-2"):
        scorer(Backbones(WeightStore(tmp_path), bf16=False), teacher="wide-resnet-50-2").fit(normal_pictures(3), 0)


def test_pictures_of_other_things_change_what_the_student_learns(backbones: Backbones, tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(pattern(i, 48, 48)[::-1]).save(tmp_path / f"{i}.png")
    plain, penalised = scorer(backbones), scorer(backbones, penalty=tmp_path)
    for made in (plain, penalised):
        made.fit(normal_pictures(4), seed=0)
    assert penalised.facts["penalty"] == "2 pictures of other things"
    assert not np.array_equal(plain.state()[0]["student.conv4.bias"], penalised.state()[0]["student.conv4.bias"])
    assert str(tmp_path) not in json.dumps(penalised.facts)


def test_a_single_image_is_enough_and_is_said_to_be_too_few(backbones: Backbones) -> None:
    made = scorer(backbones, members=0)
    made.fit(normal_pictures(1), seed=0)
    assert "the only image" in made.facts["scaling"]
    (score,) = made.score([defective_picture(3)])
    assert np.isfinite(score.value) and len(score.members) == 0 and score.member_maps.shape == (0, 16, 16)


def test_an_even_image_has_a_finite_score(backbones: Backbones) -> None:
    even = picture(np.full((64, 64, 3), 90, np.uint8))
    made = scorer(backbones)
    made.fit([even, even], seed=0)
    assert np.isfinite(made.score([even])[0].value) and np.isfinite(made.score([defective_picture(0)])[0].value)
