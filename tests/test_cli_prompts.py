"""``explainvad prompts`` as a newcomer meets it: what it needs, what it says, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import typer
from click.testing import Result
from tiny_parts import FOREIGN, GOOD, RUSTY, write_lot, write_references
from typer.testing import CliRunner

from explainvad.cli_prompts import NO_VERDICTS, prompts_command
from explainvad.errors import ConfigError, LotError, UsageError, WeightsError

sys.path.append(str(Path(__file__).parent / "detection"))
from tiny_models import CLIP, tiny_backbones, write_store

app = typer.Typer()
app.command("prompts")(prompts_command)

KINDS = [GOOD, RUSTY, GOOD, FOREIGN]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_store(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _the_store_is_that_of_the_machine(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(store))


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    return write_lot(tmp_path / "lot", KINDS)


def prompts(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"], catch_exceptions=True)


def said(*arguments: object) -> str:
    done = prompts(*arguments, "--backbone", CLIP)
    assert done.exit_code == 0, done.exception
    return done.output


def row(text: str, label: str) -> list[str]:
    """The values of one line of the table."""
    (line,) = [line for line in text.splitlines() if line.startswith(label)]
    return re.split(r"\s{2,}", line[len(label) :].strip())


def test_a_newcomer_without_weights_is_told_what_to_run(lot: Path) -> None:
    done = prompts(lot)
    assert isinstance(done.exception, WeightsError)
    assert "explainvad models pull clip-vit-b-16-plus-240" in str(done.exception)


def test_the_generic_words_alone(lot: Path) -> None:
    text = said(lot, "--object", "disc")
    assert 'prompts set generic, object "disc": 231 phrases' in text
    assert f"lot     {lot}: 4 images, 0 unreadable" in text
    assert "metal-surface" not in text and "separates better" not in text
    assert row(text, "images where both kinds are alike")[0].endswith("of 4")
    assert NO_VERDICTS in text and "no verdicts" in NO_VERDICTS


def test_a_set_of_the_trade_is_compared_with_the_generic_one(lot: Path, tmp_path: Path) -> None:
    out = tmp_path / "prompts.json"
    text = said(lot, "--set", "metal-surface", "--object", "disc", "--out", out)
    kept = json.loads(out.read_text("utf-8"))
    generic, metal = kept["sets"]
    assert [s["name"] for s in kept["sets"]] == ["generic", "metal-surface"]
    assert row(text, "separation: 0 alike, 1 apart") == [f"{s['separation']:.2f}" for s in kept["sets"]]
    assert row(text, "agreement on how images differ") == [f"{s['agreement']:.1f}" for s in kept["sets"]]
    better = max(kept["sets"], key=lambda s: s["separation"])["name"]
    assert f"note    {better} separates better on these images" in text
    for figures in kept["sets"]:
        for warning in figures["warnings"]:
            assert f"warning {figures['name']}: {warning}" in text
    assert (len(generic["phrases"]), len(metal["phrases"])) == (231, 242)
    assert "scratched disc" in text and "{}" not in text
    assert kept["note"] == NO_VERDICTS and kept["clip"] == CLIP and "sha256" in kept["weights"]


def test_images_are_ranked_by_their_zero_shot_score(lot: Path, tmp_path: Path) -> None:
    out = tmp_path / "prompts.json"
    text = said(lot, "--out", out)
    images = json.loads(out.read_text("utf-8"))["sets"][0]["images"]
    ranking = re.findall(r"^ +(0\.\d{3}) +(\d\.\d{2})  (\d\d_\w+\.png)  (.+) \| (.+)$", text, re.MULTILINE)
    by_score = sorted(images, key=lambda image: -image["score"])
    assert [line[2] for line in ranking] == [image["file"] for image in by_score]
    assert [line[0] for line in ranking] == [f"{image['score']:.3f}" for image in by_score]
    assert [(line[3], line[4]) for line in ranking] == [
        (image["nearest_anomalous"], image["nearest_normal"]) for image in by_score
    ]


def test_the_scores_are_those_of_clip(lot: Path, store: Path, tmp_path: Path) -> None:
    from explainvad.detection.clip.encoder import ClipEncoder
    from explainvad.detection.clip.prompts import PromptConfig
    from explainvad.lot import read_image, scan

    out = tmp_path / "prompts.json"
    said(lot, "--out", out)
    (figures,) = json.loads(out.read_text("utf-8"))["sets"]
    encoder = ClipEncoder.of(tiny_backbones(store), CLIP)
    phrases = PromptConfig().phrases()
    texts = encoder.texts([phrase.text for phrase in phrases])
    for file, kept in zip(scan(lot), figures["images"], strict=True):
        image = encoder.see(read_image(file)).image.mean(0)
        cosines = texts @ (image / image.norm())
        # the command may run in bfloat16 where that pays
        assert kept["similarities"] == pytest.approx(cosines.tolist(), abs=0.03)
        means = [texts[:147].mean(0), texts[147:].mean(0)]
        normal, anomalous = (float(image @ mean / mean.norm() / image.norm()) for mean in means)
        expected = 1 / (1 + 2.718281828 ** ((normal - anomalous) / 0.07))
        assert kept["score"] == pytest.approx(expected, abs=0.05)


def test_reference_images_give_the_scores_a_measure(lot: Path, tmp_path: Path) -> None:
    out, reference = tmp_path / "prompts.json", write_references(tmp_path / "reference", 3)
    text = said(lot, "--reference", reference, "--out", out)
    (figures,) = json.loads(out.read_text("utf-8"))["sets"]
    normal = figures["reference"]
    highest = max(image["score"] for image in normal["images"])
    above = sum(image["score"] > highest for image in figures["images"])
    assert figures["above_every_reference"] == above
    assert row(text, "images above every reference image") == [f"{above} of 4"]
    assert row(text, "separation on reference images") == [f"{normal['separation']:.2f}"]
    assert NO_VERDICTS in text


def test_own_words_from_a_configuration(lot: Path, tmp_path: Path) -> None:
    config = tmp_path / "explainvad.toml"
    config.write_text('[prompts]\nobject = "ribbed disc"\nanomalous_states = ["rusty {}", "bent {}"]\n')
    text = said(lot, "--config", config)
    assert 'prompts set generic, object "ribbed disc", own anomalous states: 189 phrases' in text
    assert row(text, " " * 30) == ["generic", "generic + own words"]
    assert "rusty ribbed disc" in text


def test_unreadable_files_are_named_and_left_out(lot: Path, tmp_path: Path) -> None:
    (lot / "broken.png").write_bytes(b"no image")
    out = tmp_path / "prompts.json"
    assert "4 images, 1 unreadable" in said(lot, "--out", out)
    (unreadable,) = json.loads(out.read_text("utf-8"))["unreadable"]
    assert unreadable["file"] == "broken.png" and unreadable["reason"]


def test_a_long_ranking_is_cut_in_the_terminal_only(tmp_path: Path) -> None:
    lot, out = write_lot(tmp_path / "many", [GOOD] * 23), tmp_path / "prompts.json"
    assert "3 more, all of them with --out" in said(lot, "--out", out)
    assert len(json.loads(out.read_text("utf-8"))["sets"][0]["images"]) == 23


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--set", "metl"], ConfigError, "prompts: set = 'metl': .*the nearest is metal-surface"),
        (["--object", "a {}"], ConfigError, "expected the name of an object without braces"),
        (["--device", "cuda:9"], UsageError, "cuda:9 was asked for"),
    ],
)
def test_what_is_wrong_is_named(lot: Path, arguments: list[str], error: type[Exception], message: str) -> None:
    done = CliRunner().invoke(app, [str(lot), "--backbone", CLIP, *arguments])
    assert isinstance(done.exception, error) and re.search(message, str(done.exception))


def test_a_lot_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert isinstance(prompts(tmp_path / "empty", "--backbone", CLIP).exception, LotError)
    (tmp_path / "empty" / "notes.txt").write_text("nothing to see")
    done = prompts(tmp_path / "empty", "--backbone", CLIP)
    assert isinstance(done.exception, LotError) and "no readable image" in str(done.exception)
    assert "notes.txt" in str(done.exception)


def test_one_image_has_no_agreement(tmp_path: Path) -> None:
    lot, out = write_lot(tmp_path / "one", [GOOD]), tmp_path / "prompts.json"
    assert row(said(lot, "--out", out), "agreement on how images differ") == ["one image"]
    assert json.loads(out.read_text("utf-8"))["sets"][0]["agreement"] is None
