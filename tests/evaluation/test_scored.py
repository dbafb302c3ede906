"""Scores are kept as they were, and a labelled data set is scored by what did not see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scored_examples import scored_images
from tiny_parts import CONFIG, GOOD, RUST, RUSTY, write_part

from explainvad.errors import LotError
from explainvad.evaluation.scored import ScoredImages, score_dataset


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    images = scored_images(10, 4)
    images.save(tmp_path / "new" / "scores.npz")
    again = ScoredImages.load(tmp_path / "new" / "scores.npz")
    for name in ("groups", "kinds", "sizes"):
        assert np.array_equal(getattr(images, name), getattr(again, name))
    for name in ("values", "members", "features"):
        ours, theirs = getattr(images, name), getattr(again, name)
        assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_an_image_is_met_as_it_was_scored() -> None:
    images = scored_images(10, 4)
    scores, features = images.scored(5)
    assert {s.scorer: s.value for s in scores} == {n: v[5] for n, v in images.values.items()}
    for score in scores:
        assert np.array_equal(score.members, images.members[score.scorer][5])
    assert features == {"exposure": images.features["exposure"][5]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve good parts in two pictures each, and four rusty parts, one without a mask's folder of its own."""
    from PIL import Image

    root = tmp_path_factory.mktemp("labelled") / "data"
    for i in range(24):
        write_part(root / "good" / f"part{i // 2:02d}_{i % 2}.png", i, GOOD)
    for i in range(4):
        path = write_part(root / "rust" / f"part{50 + i}_0.png", 100 + i, RUSTY)
        with Image.open(path) as picture:
            mask = np.zeros((picture.height, picture.width), np.uint8)
        mask[RUST] = 255
        (root / "ground_truth" / "rust").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / "ground_truth" / "rust" / path.name)
    return root


def test_a_data_set_is_scored_by_whole_groups(data: Path) -> None:
    images = score_dataset(data, CONFIG, group=r"part(\d+)_")
    good = images.kinds == "good"
    assert sorted(set(images.kinds)) == ["good", "rust"]
    # a quarter of twelve good groups trains the scorers, the pictures of the others are scored
    assert len(set(images.groups[good])) == 9 and int(good.sum()) == 18
    assert sorted(images.groups[~good]) == ["50", "51", "52", "53"]
    assert images.sizes[~good].tolist() == pytest.approx([(7 * 8) ** 0.5] * 4)
    assert not images.sizes[good].any()
    assert set(images.values) == {"reconstruction", "memory_bank"} and "framing" in images.features
    assert images.values["memory_bank"][~good].min() > np.median(images.values["memory_bank"][good])


def test_too_few_good_images_are_refused(tmp_path: Path) -> None:
    write_part(tmp_path / "good" / "a.png", 1)
    write_part(tmp_path / "rust" / "b.png", 2, RUSTY)
    with pytest.raises(LotError, match="too few good images"):
        score_dataset(tmp_path, CONFIG)
