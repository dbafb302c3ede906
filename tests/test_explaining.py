"""One call: every map in the image's frame, nearest normal patches by name, and what is lacking."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CLIP, CNN, VIT, tiny_backbones, write_store
from tiny_parts import HEIGHT, RUSTY, WIDTH, part

from explainvad.attribution.references import ReferenceGallery
from explainvad.detection.backbones import Backbones
from explainvad.detection.banks.anomaly_dino import AnomalyDINO, AnomalyDINOOptions
from explainvad.detection.banks.patchcore import PatchCore, PatchCoreOptions
from explainvad.detection.clip.winclip import WinCLIP, WinCLIPOptions
from explainvad.detection.padim import PaDiM, PaDiMOptions
from explainvad.detection.reconstruction.dinomaly import Dinomaly, DinomalyOptions
from explainvad.detection.reconstruction.unet import UNetAutoencoder, UNetOptions
from explainvad.errors import UsageError
from explainvad.explaining import explain
from explainvad.explanation_files import explanation_files
from explainvad.reference_images import reference_names
from explainvad.types import AttributionMap, Explanation, InspectionImage, Scorer
from explainvad.uncertainty.splits import Split

GRADIENTS = {"integrated-gradients", "occlusion"}
ATTENTION = {"attention-rollout", "gradient-weighted-attention"}


def picture(seed: int, kind: str = "good", width: int = WIDTH, height: int = HEIGHT) -> InspectionImage:
    return InspectionImage(f"img-{seed}", f"{seed}.png", part(seed, kind, width, height), "0" * 64, 1, Path("x.png"))


def named(number: int) -> tuple[str, str]:
    return f"reference-{number}.png", f"{number:064d}"


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backbones]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_backbones(write_store(tmp_path_factory.mktemp("weights")))
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scorers(backbones: Backbones) -> dict[str, Scorer]:
    references = [picture(seed) for seed in range(4)]
    made: dict[str, Any] = {
        "dino": AnomalyDINO(AnomalyDINOOptions(backbone=VIT, resolution=64), backbones),
        "patchcore": PatchCore(PatchCoreOptions(backbone=CNN, resolution=64, layers=(1, 2)), backbones),
        "winclip": WinCLIP(WinCLIPOptions(backbone=CLIP, shots=1, scales=(2,)), backbones),
        "dinomaly": Dinomaly(DinomalyOptions(backbone=VIT, resolution=64, layers=(0, 1), steps=2, width=32), backbones),
        "unet": UNetAutoencoder(UNetOptions(resolution=32, side=32, steps=2, batch=2), backbones),
        "padim": PaDiM(PaDiMOptions(backbone=CNN, resolution=64, layers=(1,)), backbones),
    }
    for scorer in made.values():
        scorer.fit(references, seed=0)
    return made


@pytest.fixture(scope="module")
def gallery() -> ReferenceGallery:
    return ReferenceGallery.fit([picture(seed) for seed in range(4)])


def maps_of(explanation: Explanation) -> dict[str, AttributionMap]:
    return {found.name: found for found in explanation.maps}


def explained(
    scorer: Scorer, gallery: ReferenceGallery, image: InspectionImage | None = None, **how: Any
) -> Explanation:
    return explain(image or picture(50, RUSTY), [scorer], gallery, named, **how)


@pytest.fixture(scope="module")
def whole(scorers: dict[str, Scorer], gallery: ReferenceGallery) -> Callable[[str], Explanation]:
    """Everything that a scorer says of one rusty part, made once."""
    return cache(lambda name: explained(scorers[name], gallery))


@pytest.mark.parametrize(
    ("name", "expected", "lacking"),
    [
        ("dino", {"distance"} | GRADIENTS | ATTENTION, {"grad-cam", "prompt-relevance"}),
        ("patchcore", {"distance", "grad-cam"} | GRADIENTS, {"attention", "prompt-relevance"}),
        (
            "winclip",
            {"text-2", "reference-tokens", "reference-2"} | GRADIENTS | ATTENTION,
            {"grad-cam", "nearest-normal"},
        ),
        (
            "dinomaly",
            {"distance-1", "distance-2"} | GRADIENTS | ATTENTION,
            {"grad-cam", "nearest-normal", "prompt-relevance"},
        ),
        (
            "unet",
            {"reconstruction-residual"} | GRADIENTS,
            {"attention", "grad-cam", "nearest-normal", "prompt-relevance"},
        ),
        ("padim", {"distance"}, {"attention", "gradients", "nearest-normal", "prompt-relevance"}),
    ],
)
def test_every_scorer_gives_what_it_can_and_says_what_it_cannot(
    name: str,
    expected: set[str],
    lacking: set[str],
    scorers: dict[str, Scorer],
    whole: Callable[[str], Explanation],
) -> None:
    found = whole(name)
    assert maps_of(found).keys() == expected | {"anomaly-map"}
    assert {absent.name for absent in found.not_given} == lacking
    assert all(absent.reason and absent.scorer == scorers[name].name for absent in found.not_given)
    for shown in found.maps:
        assert shown.values.shape == (HEIGHT, WIDTH), shown.name
        assert shown.values.any() or shown.name == "grad-cam"  # random channels may all speak against
        assert shown.method and shown.explains and shown.frame
    if expected >= GRADIENTS:
        facts = maps_of(found)["integrated-gradients"].facts
        assert abs(facts["convergence_delta"]) < 0.05 * abs(facts["value"] - facts["baseline_value"]) + 1e-4


@pytest.mark.parametrize("name", ["dino", "patchcore", "dinomaly", "unet", "winclip"])
def test_the_number_explained_is_the_scorers_own(
    name: str, scorers: dict[str, Scorer], whole: Callable[[str], Explanation]
) -> None:
    (score,) = scorers[name].score([picture(50, RUSTY)])
    value = maps_of(whole(name))["occlusion"].facts["value"]
    own = {
        "dino": lambda: score.evidence["distance"].max(),
        "patchcore": lambda: score.evidence["distance"].max(),
        "dinomaly": lambda: score.evidence["distance"].mean(0).max(),
        "unet": lambda: score.anomaly_map.max(),  # of the working frame, before it is enlarged: nearly the same
        # equation 1 without its softmax
        "winclip": lambda: 0.07 * np.log(score.evidence["text-image"].max() / (1 - score.evidence["text-image"].max())),
    }
    assert value == pytest.approx(float(own[name]()), rel=0.15 if name == "unet" else 2e-3, abs=1e-5)


def test_what_is_not_asked_for_is_not_made(scorers: dict[str, Scorer], gallery: ReferenceGallery) -> None:
    found = explained(scorers["dino"], gallery, methods=["attention"])
    assert maps_of(found).keys() == ATTENTION and not found.nearest and not found.not_given
    with pytest.raises(UsageError, match="expected methods among evidence, attention, gradients, prompts, got shap"):
        explained(scorers["dino"], gallery, methods=["shap"])


def planted(top: int, left: int, width: int, height: int, side: int = 16) -> InspectionImage:
    """A white square on grey."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[top : top + side, left : left + side] = (255, 250, 240)
    return InspectionImage("img-1", "a.png", pixels, "0" * 64, 1, Path("a.png"))


@pytest.mark.parametrize(("width", "height", "left", "top"), [(160, 64, 96, 16), (64, 160, 16, 112)])
def test_maps_lie_where_the_pixels_are_also_in_oblong_images(
    width: int, height: int, left: int, top: int, backbones: Backbones
) -> None:
    """A network without attention to speak of still has a patch embedding: change outside a patch is nothing to it."""
    plain = planted(0, 0, width, height, side=0)
    bank = AnomalyDINO(AnomalyDINOOptions(backbone=VIT, resolution=64), backbones)
    bank.fit([plain, plain], seed=0)
    image = planted(top, left, width, height)
    found = explained(bank, ReferenceGallery.fit([plain]), image)
    inside = slice(top, top + 16), slice(left, left + 16)
    for name in ("integrated-gradients", "occlusion"):
        share = np.abs(maps_of(found)[name].values)
        assert share[inside].sum() / share.sum() > 0.8, name  # the rest is equal to the baseline
    y, x = np.unravel_index(maps_of(found)["attention-rollout"].values.argmax(), (height, width))
    x0, y0, x1, y1 = found.nearest[0].xyxy
    # the rollout is of the worst patch, which keeps most to itself
    assert y0 - 4 <= y < y1 + 4 and x0 - 4 <= x < x1 + 4


def test_of_a_large_image_the_window_is_explained_in_whose_middle_the_place_lies(backbones: Backbones) -> None:
    plain, image = (planted(16, 224, 320, 64, side=side) for side in (0, 16))
    bank = AnomalyDINO(AnomalyDINOOptions(backbone=VIT, resolution=64), backbones)  # windows of 128 px
    bank.fit([plain, plain], seed=0)
    found = explained(bank, ReferenceGallery.fit([plain]), image, at=(230, 20))
    maps = maps_of(found)
    assert (
        "columns 192 to 312" in maps["occlusion"].frame or "of a working frame of 64 x 320" in maps["occlusion"].frame
    )
    share = np.abs(maps["occlusion"].values)
    assert share[16:32, 224:240].sum() / share.sum() > 0.8
    assert not maps["attention-rollout"].values[:, :150].any()  # the network did not see it with this place


def test_a_place_that_is_asked_for_is_explained(scorers: dict[str, Scorer], gallery: ReferenceGallery) -> None:
    found = explained(scorers["dino"], gallery, methods=["attention"], at=(4, 60))
    rollout = maps_of(found)["attention-rollout"]
    assert rollout.explains.startswith("distance of the patch at y 94.5%, x 5.6%")
    y, x = np.unravel_index(rollout.values.argmax(), (HEIGHT, WIDTH))
    assert y >= 52 and x < 12
    for place in ((WIDTH, 0), (0, HEIGHT)):
        with pytest.raises(UsageError, match=f"expected a place within {WIDTH} x {HEIGHT} px"):
            explained(scorers["dino"], gallery, at=place)


def test_nearest_normal_patches_are_named_with_image_and_place(backbones: Backbones) -> None:
    """Of two references only the second has the white square, at another place than the image."""
    references = [planted(0, 0, 96, 64, side=0), planted(40, 8, 96, 64)]
    bank = AnomalyDINO(AnomalyDINOOptions(backbone=VIT, resolution=64, share=1), backbones)
    bank.fit(references, seed=0)
    found = explained(bank, ReferenceGallery.fit(references), planted(40, 8, 96, 64), methods=["evidence"])
    assert len(found.nearest) == 5
    assert all(near.distance < 1e-4 for near in found.nearest)  # it is the second reference
    image = planted(16, 64, 96, 64)
    (score,) = bank.score([image])
    near = explained(bank, ReferenceGallery.fit(references), image, methods=["evidence"]).nearest[0]
    row, col = np.unravel_index(score.evidence["distance"].argmax(), (8, 12))
    assert near.xyxy == (col * 8, row * 8, col * 8 + 8, row * 8 + 8)
    number, at_row, at_col = score.evidence["neighbour"][row, col]
    assert (near.number, near.cell, near.reference) == (number, (at_row, at_col), f"reference-{number}.png")
    assert near.place == pytest.approx((at_col / 12, at_row / 8, (at_col + 1) / 12, (at_row + 1) / 8))
    assert near.distance == pytest.approx(float(score.evidence["distance"].max()))


def test_a_bank_of_an_earlier_version_says_what_it_knows(backbones: Backbones) -> None:
    references = [picture(0), picture(1)]
    bank = AnomalyDINO(AnomalyDINOOptions(backbone=VIT, resolution=64), backbones)
    bank.fit(references, seed=0)
    arrays, facts = bank.state()
    del arrays["grids"]
    old = AnomalyDINO(AnomalyDINOOptions(backbone=VIT, resolution=64), backbones)
    old.load(arrays, facts)
    near = explained(old, ReferenceGallery.fit(references), methods=["evidence"]).nearest[0]
    assert near.place is None and near.number in (0, 1)
    grown = old.extended([picture(2)], seed=0)
    assert grown.arrays["grids"].tolist() == [[0, 0], [0, 0], [8, 10]]
    assert bank.extended([picture(2)], seed=0).arrays["grids"].tolist() == [[8, 10]] * 3


def test_words_are_left_out_one_by_one(scorers: dict[str, Scorer], whole: Callable[[str], Explanation]) -> None:
    scorer: Any = scorers["winclip"]
    found = whole("winclip").phrases
    assert [phrase.anomalous for phrase in found] == [True] * 3 + [False] * 3
    first = found[0]
    assert " ".join(word.word for word in first.words) == first.phrase
    (score,) = scorer.score([picture(50, RUSTY)])
    region = scorer.prompted_region(picture(50, RUSTY), score)
    texts = scorer.encoder.texts([first.phrase, " ".join(first.phrase.split()[1:])]).numpy()
    whole, without = texts @ region.region
    assert first.similarity == pytest.approx(whole, abs=1e-5)
    assert first.words[0].relevance == pytest.approx(whole - without, abs=1e-5)
    # the region is the patch that the scorer's own evidence speaks of, which one square alone shows
    square = picture(50, RUSTY, HEIGHT, HEIGHT)
    (score,) = scorer.score([square])
    row, col = (int(i) * 15 // HEIGHT for i in np.unravel_index(score.anomaly_map.argmax(), (HEIGHT, HEIGHT)))
    region = scorer.prompted_region(square, score)
    np.testing.assert_allclose(score.evidence["phrases"][:, row, col], region.similarity, atol=2e-3)
    np.testing.assert_allclose(score.evidence["phrases"].mean((1, 2)), region.elsewhere, atol=2e-3)


def test_files_say_what_each_grey_value_is(whole: Callable[[str], Explanation]) -> None:
    found = whole("dino")
    files = explanation_files(found)
    said = json.loads(files["explanation.json"])
    assert {entry["file"] for entry in said["maps"]} | {"explanation.json"} == set(files)
    for shown, entry in zip(found.maps, said["maps"], strict=True):
        with Image.open(io.BytesIO(files[entry["file"]])) as stored:
            grey = np.asarray(stored, dtype=np.float64)
        back = entry["low"] + grey / 65535 * (entry["high"] - entry["low"])
        np.testing.assert_allclose(back, shown.values, atol=1.01 * (entry["high"] - entry["low"]) / 65535)
        assert entry["facts"] == dict(shown.facts)
    assert said["not_given"][0].keys() == {"name", "scorer", "reason"}
    assert said["baseline"].startswith("the nearest reference picture of the model, ref-00")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"references": ["a", "b", "c"], "reference_files": ["a.png", "b.png", "c.png"]}, ("c.png", "c")),
        ({"references": ["a", "b", "c"]}, ("", "c")),
    ],
)
def test_reference_images_are_named_by_their_number_in_the_fit(
    facts: dict[str, Any], expected: tuple[str, str]
) -> None:
    split = Split((0, 2), (1,), {"": (1,)}, 3, "")
    name = reference_names(split, facts)
    assert name(1) == expected and name(2) == ("", "")
    further = {**facts, "further": [[["d.png", "d"]]]}
    assert reference_names(split, further)(2) == ("d.png", "d")
    assert reference_names(split, {**further, "extends": ["x"]})(2) == ("d.png", "d")
    # one of two extensions went unnoted: which images have which numbers is not known
    assert reference_names(split, {**further, "extends": ["x", "y"]})(2) == ("", "")
