"""What words about regions are worth, against figures worked out by hand; baselines, models and files."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import explainvad
from numpy.typing import NDArray
from PIL import Image
from test_evaluate import N_FOREIGN, N_RUSTY, write_dataset
from tiny_chat_server import answers, serving
from tiny_parts import CONFIG_TOML

from explainvad import Inspector
from explainvad.config import DescriberConfig, InspectionConfig
from explainvad.evaluation import evaluate, text_arms
from explainvad.evaluation.text import MEASURES, TextEvaluation
from explainvad.evaluation.text_arms import FIXED_SENTENCE, FIXED_WORDS, N_SAMPLES, Arm, Marked, Said, arms
from explainvad.evaluation.text_metrics import (
    claim_counts,
    coverage,
    difference_interval,
    names_defect,
    place_ratios,
    ratio_interval,
    reports_difference,
    votes,
)
from explainvad.evaluation.text_tables import as_csv, console, markdown, write_text
from explainvad.evaluation.text_trials import GAP, erased, moved_region, touched
from explainvad.explanation.alignment import align
from explainvad.explanation.claims import check_sentence
from explainvad.explanation.colour import NO_BASELINE, SAME_BRIGHTNESS
from explainvad.explanation.describers.answer import UNDETERMINED, Answer
from explainvad.explanation.describers.asking import NoAnswerError
from explainvad.explanation.describers.checking import checked_sentences
from explainvad.explanation.describers.prompt import told_facts
from explainvad.explanation.findings import measured_finding
from explainvad.explanation.place import PLACES
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import (
    ClaimStatus,
    Finding,
    InspectionImage,
    Mask,
    Region,
    Sentence,
    WordProbability,
)

CHOSEN = {"visual_evidence": "Look.", "comparison": "Look.", "region_id": "R1", **FIXED_WORDS}
H, W = 90, 120
SPOTS = {"upper left": (8, 10), "lower right": (70, 95), "centre": (40, 55), "upper right": (6, 100)}  # row, column
DARK = 60  # grey levels that a spot is darker by


def spot(place: str) -> NDArray[np.bool_]:
    """Ten by twelve pixels, named by where they lie in the whole image."""
    mask = np.zeros((H, W), dtype=np.bool_)
    row, column = SPOTS[place]
    mask[row : row + 10, column : column + 12] = True
    return mask


def picture(mask: NDArray[np.bool_] | None = None, seed: int = 0) -> InspectionImage:
    """Noise, which no silhouette can be told from, with a dark spot."""
    pixels = np.random.default_rng(seed).integers(130, 171, (H, W, 3)).astype(np.uint8)
    if mask is not None:
        pixels[mask] -= DARK
    return InspectionImage(f"img-{seed}", f"{seed}.png", pixels, f"sha {seed}", 1, Path(f"{seed}.png"))


def region(mask: NDArray[np.bool_]) -> Region:
    y, x = np.nonzero(mask)
    box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    mark = Mask.from_array(mask)
    return Region("R1", mark, box, box[:2], 5.0, 9.0, int(mask.sum()), None, 0.01, "threshold", {"a": 1.0})


def found(image: InspectionImage, mask: NDArray[np.bool_]) -> Finding:
    return measured_finding(image, region(mask), None, mask)


def jpeg(image: InspectionImage) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def collected(who: tuple[Arm, ...], seed: int = 0, places: tuple[str, ...] = tuple(SPOTS)) -> dict[str, Any]:
    """One image for each place, with one region that is its defect."""
    evaluation = TextEvaluation(who, seed)
    for number, place in enumerate(places):
        mask = spot(place)
        image = picture(mask, number)
        evaluation.add(image, (found(image, mask),), number / 10, mask * np.float32(3), mask, jpeg(picture(seed=99)))
    return evaluation.results()


def sentence(text: str) -> Sentence:
    image = picture(spot("upper left"))
    return check_sentence(text, "test", found(image, spot("upper left")).facts)


class TestMeasures:
    """Each of them on cases that a hand can work out."""

    def test_a_place_word_holds_its_share_of_the_mass_over_its_share_of_the_area(self) -> None:
        mass = np.zeros((9, 12))
        mass[1, 3] = mass[2, 4] = 1  # in the frame of 6 x 6 px from (3, 1): its upper left cell
        mass[6, 8] = 2  # its lower right one
        mass[0, 0] = 50  # outside
        ratios = place_ratios(mass, (3, 1, 9, 7))
        assert ratios is not None
        assert ratios == dict.fromkeys(PLACES, 0.0) | {"upper left": 4.5, "lower right": 4.5, UNDETERMINED: 1.0}

    def test_chance_is_one_whatever_the_mass(self) -> None:
        assert place_ratios(np.ones((7, 11)), (0, 0, 11, 7)) == pytest.approx(dict.fromkeys((*PLACES, UNDETERMINED), 1))
        ratios = place_ratios(np.random.default_rng(0).random((30, 60)) ** 8, (0, 0, 60, 30))
        assert ratios is not None
        assert np.mean([ratios[place] for place in PLACES]) == pytest.approx(1)

    def test_no_mass_in_the_frame_is_not_defined(self) -> None:
        mass = np.zeros((9, 9))
        mass[8, 8] = 1
        assert place_ratios(mass, (0, 0, 6, 6)) is None
        assert place_ratios(np.ones((9, 9)), (0, 0, 2, 9)) is None

    @pytest.mark.parametrize(
        ("text", "kind", "named"),
        [
            ("A scratch is visible.", UNDETERMINED, True),
            ("The region is darker.", UNDETERMINED, False),
            ("No scratch is visible.", UNDETERMINED, False),
            ("The region shows no dent.", "none visible", False),
            ("The region is darker.", "crack", True),
            ("The region is not darker, but there is a stain.", UNDETERMINED, True),
            ("There may be a scratch.", UNDETERMINED, False),
            ("The region is darker, possibly a stain.", UNDETERMINED, False),
            ("The mark could be a dent, but there is a crack.", UNDETERMINED, True),
            ("Is it a scratch?", UNDETERMINED, False),
            ("The reference shows a scratch.", UNDETERMINED, False),
            ("In picture D there is a dent.", UNDETERMINED, False),
            ("A scratch is visible that the reference does not have.", UNDETERMINED, True),
        ],
    )
    def test_a_defect_is_named_unless_it_is_denied(self, text: str, kind: str, named: bool) -> None:
        assert names_defect({"defect_type": kind}, (sentence(text),)) is named

    def test_a_difference_is_a_word_or_a_claim_on_colour(self) -> None:
        assert reports_difference({"brightness": "darker"}, ())
        assert not reports_difference({"brightness": "same"}, (sentence("The region is not redder than before."),))
        assert reports_difference({"brightness": "same"}, (sentence("It is redder than its surroundings."),))
        assert not reports_difference({"brightness": UNDETERMINED}, ())
        assert reports_difference({"brightness": UNDETERMINED}, (sentence("It is darker than its surroundings."),))
        assert reports_difference({}, (sentence("It is brighter than its surroundings."),))  # though it is not
        assert not reports_difference({}, (sentence("It is not darker than its surroundings."),))
        facts = found(picture(spot("upper left")), spot("upper left")).facts
        for word, reported in (("same", False), (UNDETERMINED, False), ("brighter", True)):
            chosen = checked_sentences(Answer(**CHOSEN | {"brightness": word}), facts, "test", None)
            assert reports_difference({}, chosen) is reported

    def test_nothing_to_compare_with_is_no_measured_sameness(self) -> None:
        image, mask = picture(spot("centre")), spot("centre")
        facts = replace(found(image, mask).facts, baseline=NO_BASELINE, brightness=SAME_BRIGHTNESS)
        marked = Marked(image, Finding(region(mask), facts, ()), ("R1",), b"")
        assert text_arms.Measured().say(marked).words["brightness"] == UNDETERMINED
        told = told_facts(facts)
        assert told["brightness"] == UNDETERMINED and not {"delta_e", "noise_delta_e"} & told.keys()

    def test_coverage_counts_facts_that_a_supported_claim_speaks_of(self) -> None:
        facts = replace(found(picture(spot("upper left")), spot("upper left")).facts, orientation_deg=None, colour=None)
        assert coverage((), facts) == 0
        right, wrong = sentence("The region lies in the upper left of the image."), sentence("It is brighter.")
        assert coverage((right, wrong), facts) == 1 / 4  # of place, size, shape and brightness
        assert coverage((right,), replace(facts, touches_edge=True)) == 1 / 5
        texts = MeasuredDescriber().describe(picture(), region(spot("upper left")), facts)
        assert coverage([check_sentence(text, "test", facts) for text in texts], facts) == 1

    def test_claims_are_counted_by_kind(self) -> None:
        counts = claim_counts(
            [
                sentence("The region lies in the upper left of the image."),
                sentence("The region lies in the lower right of the image."),
                sentence("It is darker than its surroundings."),
            ]
        )
        one = Counter({ClaimStatus.SUPPORTED: 1})
        assert counts == {"place": one + Counter({ClaimStatus.CONTRADICTED: 1}), "brightness": one}

    def test_votes(self) -> None:
        assert votes(["a"] * 5) == (1.0, 0.0)
        assert votes(["a", "b", "a", "b"]) == (0.5, 1.0)
        assert votes(["a", "b", "c", "d"]) == (0.25, 2.0)
        with pytest.raises(ValueError, match="at least one word"):
            votes([])


class TestIntervals:
    """Images are resampled whole."""

    def test_the_estimate_is_a_ratio_of_sums(self) -> None:
        value = ratio_interval([(0, 1, 1), (0, 0, 1), (7, 2, 2)], 0)
        assert value is not None
        assert (value["estimate"], value["n"], value["n_images"]) == (3 / 4, 3, 2)
        assert (value["lower"], value["upper"]) == (0.5, 1.0)  # the ratios of either image alone

    def test_more_regions_of_the_same_images_do_not_narrow_it(self) -> None:
        rows = [(image, float(image % 3 == 0), 1.0 + image / 30) for image in range(30)]
        once, often = ratio_interval(rows, 4), ratio_interval(rows * 10, 4)
        assert once is not None and often is not None
        assert (once["lower"], once["upper"]) == pytest.approx((often["lower"], often["upper"]), rel=1e-12)
        assert 0 < once["lower"] < once["estimate"] < once["upper"] < 1
        assert ratio_interval(rows, 4) == once
        assert ratio_interval(rows, 5) != once

    def test_what_is_not_defined(self) -> None:
        assert ratio_interval([], 0) is None
        assert ratio_interval([(0, 0, 0), (1, 0, 0)], 0) is None
        alone = ratio_interval([(3, 1, 2)], 0)
        assert alone == {"estimate": 0.5, "lower": None, "upper": None, "n_images": 1, "n": 1}


class TestTrials:
    """Marks that are moved, and defects that are erased."""

    def test_only_defects_that_the_region_meets(self) -> None:
        truth = spot("upper left") | spot("centre")
        assert np.array_equal(touched(truth, spot("centre")), spot("centre"))
        assert not touched(truth, spot("lower right")).any()

    def test_a_mark_is_moved_to_a_normal_place_in_another_cell(self) -> None:
        anomalous = spot("upper left") | spot("centre")
        places = set()
        for seed in range(20):
            moved = moved_region(region(spot("upper left")), ("upper left",), anomalous, None, (seed, 1))
            assert moved is not None
            mask = moved.mask.to_array()
            x0, y0, x1, y1 = moved.xyxy
            assert mask.sum() == mask[y0:y1, x0:x1].sum() == 120
            near = np.zeros_like(mask)
            near[max(0, y0 - GAP) : y1 + GAP, max(0, x0 - GAP) : x1 + GAP] = True
            assert not (near & anomalous).any()
            assert found(picture(), mask).facts.place != "upper left"
            places.add(moved.xyxy)
        assert len(places) > 5

    def test_a_mark_stays_on_the_part_and_off_what_is_anomalous(self) -> None:
        part = np.zeros((H, W), dtype=np.bool_)
        part[:, :60] = True
        moved = moved_region(region(spot("upper left")), ("upper left",), spot("upper left"), part, (0, 1))
        assert moved is not None and moved.xyxy[2] <= 60
        assert moved_region(region(spot("upper left")), (), np.ones((H, W), np.bool_), None, (0, 1)) is None

    def test_erasing_leaves_what_the_reference_shows_in_the_pictures_own_light(self) -> None:
        defect = spot("centre")
        flat = replace(picture(), pixels=np.full((H, W, 3), 150, np.uint8))
        marked = replace(flat, pixels=np.where(defect[..., None], 90, flat.pixels).astype(np.uint8))
        darker = replace(flat, pixels=np.full((H, W, 3), 110, np.uint8))
        assert np.array_equal(erased(marked, defect, jpeg(darker)).pixels, flat.pixels)

    def test_erasing_takes_the_same_place_of_a_reference_that_registers(self) -> None:
        rng = np.random.default_rng(0)
        coarse = Image.fromarray(rng.integers(60, 200, (30, 40), dtype=np.uint8)).convert("RGB")
        scene = np.asarray(coarse.resize((440, 340), Image.Resampling.BICUBIC))
        shown = replace(picture(), pixels=scene[20:320, 20:420].copy())
        defect = np.zeros((300, 400), dtype=np.bool_)
        defect[120:160, 180:230] = True
        whole = shown.pixels.copy()
        shown.pixels[defect] = 0
        reference = jpeg(replace(picture(), pixels=scene[32:332, 8:408]))  # 12 px further down and left
        aligned = align(shown, reference, defect)
        assert aligned is not None

        def left(image: InspectionImage) -> float:
            return float(np.abs(image.pixels[defect].astype(float) - whole[defect]).mean())

        assert left(erased(shown, defect, reference, aligned)) < 4 < left(erased(shown, defect, reference)) / 3


class _Scripted:
    """Who ``looks`` says the marked region's place, and names a scratch where it is dark; else always the same."""

    author, samples = "a script", 1

    def __init__(self, name: str, looks: bool) -> None:
        self.name, self._looks = name, looks

    def say(self, marked: Marked, sample: int = 0) -> Said:
        facts = marked.finding.facts
        dark = facts.brightness == "darker"
        words = {**FIXED_WORDS, "location": facts.place if self._looks else "upper left"}
        words["defect_type"] = "scratch" if dark or not self._looks else "none visible"
        return Said(words, ())


class _Sure:
    """Who chooses the right place and brightness or another one by turns, and tells ``when_right`` or 0.25 of it."""

    author, samples, name = "a script", 1, "sure"

    def __init__(self, when_right: float) -> None:
        self._when_right, self._n = when_right, 0

    def say(self, marked: Marked, sample: int = 0) -> Said:
        facts, self._n = marked.finding.facts, self._n + 1
        right = self._n % 2 == 0
        words = {**FIXED_WORDS, "location": facts.place if right else "lower left", "size": UNDETERMINED}
        words["brightness"] = "darker" if right else "brighter"
        p = self._when_right if right else 0.25
        told = {field: WordProbability(word, p / 2, p, 0.5, 1) for field, word in words.items() if field != "shape"}
        return Said(words, (), told)


class _Silent:
    name, author, samples = "silent", "nobody", 1

    def say(self, marked: Marked, sample: int = 0) -> Said:
        raise NoAnswerError("asleep\n|")


class TestEvaluation:
    """Who looks is told from who does not."""

    def test_looking_shows_in_every_trial(self) -> None:
        results = collected((_Scripted("looks", True), _Scripted("blind", False)))
        looks, blind = (results["arms"][name]["measures"] for name in ("looks", "blind"))
        value = {name: (looks[name] or {}).get("estimate") for name in MEASURES}
        assert value["agreement_truth"] == value["agreement_map"] > 6
        assert value["agreement_shuffled"] < 1
        assert (value["named_defect"], value["erased_defect"], value["invented_defect"]) == (1, 0, 0)
        assert value["follows_mark"] == 1
        assert blind["agreement_truth"]["estimate"] == pytest.approx(value["agreement_truth"] / 4, rel=0.35)
        assert blind["erased_defect"]["estimate"] == blind["invented_defect"]["estimate"] == 1
        assert blind["follows_mark"]["estimate"] < 0.5
        assert (results["n_images"], results["n_regions"], results["n_defects"], results["n_moved"]) == (4, 4, 4, 4)

    def test_habit_is_seen_by_the_shuffle(self) -> None:
        """Where every defect lies at one place, the words of other images serve as well."""
        results = collected((_Scripted("habit", False),), places=("upper left",) * 4)
        of = results["arms"]["habit"]["measures"]
        assert of["agreement_shuffled"]["estimate"] == pytest.approx(of["agreement_truth"]["estimate"])

    def test_baselines_stand_in_their_order(self) -> None:
        results = collected(arms(InspectionConfig()))
        assert list(results["arms"]) == ["measured", "random", "fixed"]
        measured, chance, fixed = (arm["measures"] for arm in results["arms"].values())
        assert measured["agreement_truth"]["lower"] > chance["agreement_truth"]["upper"]
        assert chance["agreement_truth"]["estimate"] == pytest.approx(1, abs=0.35)
        assert measured["precision"]["estimate"] == 1 > fixed["precision"]["estimate"]
        assert measured["contradicted"]["estimate"] == 0 < chance["contradicted"]["estimate"]
        assert measured["follows_mark"]["estimate"] == 1
        assert measured["reported_difference"]["estimate"] == 1 > measured["erased_difference"]["estimate"]
        assert fixed["named_defect"]["estimate"] == fixed["invented_defect"]["estimate"] == 1
        bins = results["arms"]["random"]["by_uncertainty"]
        assert [b["n_images"] for b in bins] == [2, 1, 1]
        assert [b["epistemic_bits"] for b in bins] == [[0.0, 0.1], [0.2, 0.2], [0.3, 0.3]]
        samples = results["arms"]["random"]["samples"]["location"]
        assert 1 / N_SAMPLES <= samples["vote_share"]["estimate"] < 0.7
        assert 1 < samples["entropy_bits"]["estimate"] <= samples["largest_entropy_bits"] == np.log2(N_SAMPLES)
        assert results["arms"]["measured"]["samples"] == {}

    def test_random_words_look_at_a_picture_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed: list[int] = []
        crc32 = text_arms.zlib.crc32
        monkeypatch.setattr(text_arms.zlib, "crc32", lambda data, *at: (hashed.append(len(data)), crc32(data, *at))[1])
        image, arm = picture(spot("centre")), text_arms.Random(0)
        one, other = (Marked(image, found(image, spot(place)), ("R1",), b"") for place in ("centre", "upper left"))
        drawn = [arm.say(one, sample).words for sample in range(N_SAMPLES)]
        assert hashed.count(image.pixels.nbytes) == 1
        assert drawn[0] != drawn[1]
        assert drawn[0] != arm.say(other).words
        assert drawn[0] == arm.say(one).words

    def test_the_same_seed_gives_the_same_results(self) -> None:
        one, two = (collected(arms(InspectionConfig(seed=3)), 3) for _ in range(2))
        assert one == two != collected(arms(InspectionConfig(seed=4)), 4)

    def test_a_false_alarm_and_an_unknown_truth(self) -> None:
        mask = spot("centre")
        image, nowhere = picture(mask), np.zeros((H, W), np.bool_)
        for truth, moved in ((nowhere, 1), (None, 0)):
            evaluation = TextEvaluation(arms(InspectionConfig()), 0)
            evaluation.add(image, (found(image, mask),), 0.1, mask * np.float32(1), truth, jpeg(picture()))
            evaluation.add(image, (), 0.1, mask * np.float32(1), truth, jpeg(picture()))
            results = evaluation.results()
            of = results["arms"]["measured"]["measures"]
            assert (results["n_images"], results["n_defects"], results["n_moved"]) == (1, 0, moved)
            assert of["agreement_truth"] is of["named_defect"] is of["agreement_shuffled"] is None
            assert "detector's uncertainty" not in markdown(results)  # of one image there are no groups
            assert of["agreement_map"]["estimate"] > 6 and (of["invented_defect"] is not None) is bool(moved)

    def test_who_knows_when_it_is_right_shows_in_the_probabilities(self) -> None:
        results = collected((_Sure(0.75),))
        told = results["arms"]["sure"]["probabilities"]
        assert list(told) == ["all fields", "location", "brightness"]  # neither "undetermined" nor opinions
        assert (told["all fields"]["n"], told["location"]["n"]) == (8, 4)
        every = told["all fields"]
        assert 0 < every["n_agree"] < 8
        assert [every["masked"][kind]["estimate"] for kind in ("agree", "disagree", "difference")] == [0.75, 0.25, 0.5]
        assert [every["raw"][kind]["estimate"] for kind in ("agree", "disagree", "difference")] == [0.375, 0.125, 0.25]
        assert every["masked"]["difference"]["lower"] == every["masked"]["difference"]["upper"] == 0.5
        assert every["removed"]["estimate"] == 0.5
        assert "| sure | location | masked | 0.75 [0.75, 0.75] | 0.25 [0.25, 0.25] | 0.50 [0.50, 0.50] |" in markdown(
            results
        )
        equal = collected((_Sure(0.25),))["arms"]["sure"]["probabilities"]["all fields"]["masked"]
        assert equal["difference"]["estimate"] == 0
        assert collected((_Silent(),))["arms"]["silent"]["probabilities"] == {}
        assert "removed by the grammar" not in markdown(collected((_Silent(),)))

    def test_a_difference_is_resampled_together(self) -> None:
        agree = [(image, float(image), 1.0) for image in range(6)]
        disagree = [(image, image - 1.0, 1.0) for image in range(6)]
        value = difference_interval(agree, disagree, 0)
        assert value is not None and (value["estimate"], value["n_images"], value["n"]) == (1, 6, 12)
        assert (value["lower"], value["upper"]) == pytest.approx((1, 1))  # apart, both would vary by more
        assert difference_interval(agree, [], 0) is None

    def test_who_does_not_answer_is_counted_and_quoted_harmlessly(self, tmp_path: Path) -> None:
        results = collected((_Silent(),))
        assert results["arms"]["silent"]["unanswered"] == {"asleep |": 4}
        assert set(results["arms"]["silent"]["measures"].values()) == {None}
        assert "4 questions without a valid answer: 4 x asleep |" in console(results)
        assert "`asleep |`" in markdown(results)
        write_text(results, tmp_path)
        nothing = TextEvaluation((_Silent(),), 0).results()
        assert "nothing to describe" in console(nothing)
        assert as_csv(nothing).count("\n") == 1 + len(MEASURES)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_configured_model_has_both_arms(temperature: float) -> None:
    with serving(answers(location="upper left")) as server:
        settings = DescriberConfig(
            use="endpoint", model="tiny", base_url=server.url, temperature=temperature, picture_px=64
        )
        results = collected(arms(InspectionConfig(seed=5, describer=settings)), places=("upper left", "lower right"))
    asked = [request["messages"][-1]["content"][-1]["text"] for request in server.requests]
    n = 2 * (N_SAMPLES if temperature else 1) + 2 * 2  # regions, moved marks, erased defects
    assert Counter("Measured facts" in text for text in asked) == {True: n, False: n}
    seeds = {request["seed"] for request in server.requests}
    assert seeds == ({5 + 2 * sample for sample in range(N_SAMPLES)} if temperature else {5})
    for name in ("informed", "blind"):
        arm = results["arms"][name]
        assert arm["author"].startswith("endpoint tiny") and arm["author"].endswith(name)
        assert arm["measures"]["agreement_truth"]["estimate"] == pytest.approx(4.5, rel=0.2)  # one of two places
        assert arm["measures"]["erased_defect"]["estimate"] == 1
        assert arm["claims"]["place"]["claims"]["contradicted"] == (N_SAMPLES if temperature else 1)
        assert set(arm["samples"]) == (set(FIXED_WORDS) if temperature else set())


def test_a_local_model_tells_how_sure_it_was(tmp_path: Path) -> None:
    from tiny_vlms import write_model

    folder = write_model("qwen2_5_vl", tmp_path / "tiny")
    settings = DescriberConfig(use="vlm", model=str(folder), picture_px=64)
    config = InspectionConfig(seed=5, describer=settings, device="cpu")
    results = collected(arms(config), places=("upper left",))
    for name in ("informed", "blind"):
        told = results["arms"][name]["probabilities"]
        assert told["all fields"]["n"] >= 1 and set(told) <= {"all fields", "location", "brightness", "shape", "size"}
        assert 0 < told["all fields"]["removed"]["estimate"] < 1
    assert results["arms"]["random"]["probabilities"] == {}


def test_a_data_set_is_evaluated_with_its_text(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "RESAMPLES", 20)
    root = write_dataset(tmp_path / "discs", n_good=2)
    settings = tmp_path / "explainvad.toml"
    settings.write_text(CONFIG_TOML)
    out, seeded = tmp_path / "out", Inspector.load(model, "cpu")
    seeded.config = seeded.config.model_copy(update={"seed": 9})
    model = seeded.save(tmp_path / "seeded.evad")
    done = explainvad(
        "evaluate", root, "--out", out, "--model", model, "--text", "--config", settings, "--device", "cpu"
    )
    assert (done.code, done.err) == (0, "")

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    results = json.loads((out / "text.json").read_text("utf-8"), parse_constant=refuse)
    assert (results["dataset"], results["describer"]) == ("discs", {"use": "measured"})
    assert (results["seed"], results["arms"]["random"]["author"]) == (9, "words drawn at random, seed 9")  # the model's
    assert 0 < results["n_defects"] <= N_RUSTY  # the foreign parts have no masks
    assert results["n_images"] <= N_RUSTY + N_FOREIGN + 2
    measured, fixed = (results["arms"][name]["measures"] for name in ("measured", "fixed"))
    assert measured["agreement_truth"]["estimate"] > 3  # the rust is in the centre, as the fixed words say
    assert fixed["agreement_truth"]["estimate"] == pytest.approx(measured["agreement_truth"]["estimate"], rel=0.2)
    assert measured["precision"]["estimate"] == 1
    rows = list(csv.DictReader(io.StringIO((out / "text.csv").read_text("utf-8"))))
    assert len(rows) == 3 * len(MEASURES)
    assert {row["words_by"] for row in rows} == {"measured", "random", "fixed"}
    table = (out / "text.md").read_text("utf-8")
    assert all(f"| {measure} |" in table for measure in MEASURES)
    assert done.out.splitlines()[-5].split()[0] == "words" and "measured" in done.out
    with Image.open(out / "text.png") as image:
        assert image.width > 1000


def test_a_configuration_beside_a_model_is_for_text_only(model: Path, tmp_path: Path) -> None:
    (tmp_path / "explainvad.toml").write_text(CONFIG_TOML)
    done = explainvad(
        "evaluate", tmp_path, "--out", tmp_path / "out", "--model", model, "--config", tmp_path / "explainvad.toml"
    )
    assert done.code != 0 and "--model is fitted already" in done.err


def test_the_fixed_sentence_says_what_the_fixed_words_say() -> None:
    assert names_defect({}, (sentence(FIXED_SENTENCE),))
    facts = replace(found(picture(spot("centre")), spot("centre")).facts, frame="part")
    claims = check_sentence(FIXED_SENTENCE, "test", facts).claims
    assert {claim.kind: claim.status for claim in claims} == {
        "place": ClaimStatus.SUPPORTED,
        "brightness": ClaimStatus.SUPPORTED,
        "defect type": ClaimStatus.UNVERIFIABLE,
    }
