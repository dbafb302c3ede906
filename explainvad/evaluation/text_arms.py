"""Who is asked for words in the evaluation of text: three baselines that need no weights, and a configured model.

``measured`` writes from the measurements and is the ceiling on location; ``random`` chooses every word by chance and is
the floor; ``fixed`` says one sentence of everything, and shows what a measure gives for it on data whose defects lie
where they usually do. A model has two arms: ``informed``, told the measurements, and ``blind``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from explainvad.config import InspectionConfig
from explainvad.describing import RESPONDENTS
from explainvad.explanation.describers.answer import UNDETERMINED, VOCABULARIES, Answer
from explainvad.explanation.describers.checking import brightness_word, checked_sentences, size_word
from explainvad.explanation.describers.model import ModelDescriber
from explainvad.explanation.describers.store import AnswerStore
from explainvad.explanation.findings import measured_sentences
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import Alignment, Finding, InspectionImage, Sentence, WordProbability

N_SAMPLES = 5  # of a model that samples
N_DRAWS = 100  # of the random words, which cost nothing: the floor should not depend on luck
FIXED_SENTENCE = "A dark scratch is visible in the centre of the part."
FIXED_WORDS = {
    "location": "centre",
    "brightness": "darker",
    "shape": "elongated",
    "size": "small",
    "defect_type": "scratch",
    "severity": "minor",
}
_UNREAD = "No text was written."


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """One region of an image, as it is shown: its facts, the image's region ids and the nearest reference (JPEG), with
    its alignment where it registers."""

    image: InspectionImage
    finding: Finding
    ids: tuple[str, ...]
    reference: bytes
    alignment: Alignment | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """The words chosen for the closed fields, and all sentences, each checked against the measurements.

    ``word_probabilities`` are those of the words, where a model tells them.
    """

    words: Mapping[str, str]
    sentences: tuple[Sentence, ...]
    word_probabilities: Mapping[str, WordProbability] = field(default_factory=dict)


class Arm(Protocol):
    """Someone who describes marked regions; ``samples`` answers are taken to each question about a region itself."""

    name: str
    author: str
    samples: int  # 1 where a further answer could only repeat the first

    def say(self, marked: Marked, sample: int = 0) -> Said:
        """Describe a region. Raises NoAnswerError where there is no valid answer."""
        ...


class Measured:
    """The report's own sentences. The words are those that the measurements stand for; opinions it has none."""

    name, author, samples = "measured", MeasuredDescriber.author, 1

    def say(self, marked: Marked, sample: int = 0) -> Said:
        """The measured sentences; a region that spreads over the part has no location."""
        facts = marked.finding.facts
        words = {
            "location": facts.place if facts.cells else UNDETERMINED,
            "brightness": brightness_word(facts),
            "shape": facts.shape,
            "size": size_word(facts),
            "defect_type": UNDETERMINED,
            "severity": UNDETERMINED,
        }
        return Said(words, measured_sentences(marked.image, marked.finding.region, facts))


class Random:
    """Every word equally likely, "undetermined" among them. The same picture and region get the same words."""

    name, samples = "random", N_DRAWS

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._about: tuple[Marked | None, int] = (None, 0)  # what was shown last, and its hash
        self.author = f"words drawn at random, seed {seed}"

    def say(self, marked: Marked, sample: int = 0) -> Said:
        """Words that depend on the seed, the picture, the mark and the number of the sample."""
        if self._about[0] is not marked:  # as it is from sample to sample
            place = ",".join(map(str, marked.finding.region.xyxy)).encode()
            self._about = marked, zlib.crc32(place, zlib.crc32(marked.image.pixels.tobytes()))
        rng = np.random.default_rng([self._seed, self._about[1], sample])
        words = {name: str(rng.choice([*known, UNDETERMINED])) for name, known in VOCABULARIES.items()}
        return _said(words, _UNREAD, marked, self.author)


class Fixed:
    """The same words for whatever is shown."""

    name, author, samples = "fixed", "one fixed sentence", 1

    def say(self, marked: Marked, sample: int = 0) -> Said:
        """FIXED_WORDS and FIXED_SENTENCE."""
        return _said(FIXED_WORDS, FIXED_SENTENCE, marked, self.author)


class ModelArm:
    """A model that either is told the measured facts or is not."""

    def __init__(self, describer: ModelDescriber, arm: str, samples: int) -> None:
        self._describer, self.samples = describer, samples
        self.name, self.author = arm, describer.author

    def say(self, marked: Marked, sample: int = 0) -> Said:
        """What the model answers, asked again once where the answer is not valid."""
        answered = self._describer.ask(
            marked.image, marked.finding, marked.ids, marked.reference, marked.alignment, sample
        )
        said = _from_answer(answered.answer, marked, self.author)
        return replace(said, word_probabilities=answered.word_probabilities)


def arms(config: InspectionConfig) -> tuple[Arm, ...]:
    """The baselines, and both arms of the model of ``[describer]`` where one is configured, whatever its ``arm``.

    Each arm has the ``minutes`` of the configuration. Raises WeightsError or ConfigError when the model cannot be used.
    """
    baselines: tuple[Arm, ...] = (Measured(), Random(config.seed), Fixed())
    settings = config.describer
    if settings.use == "measured":
        return baselines
    respondent = RESPONDENTS[settings.use](config, None)

    def asking(arm: str) -> ModelArm:
        return ModelArm(
            ModelDescriber(
                respondent,
                part=None,
                arm=arm,
                picture_px=settings.picture_px,
                minutes=settings.minutes,
                timeout=settings.timeout,
                store=AnswerStore(),
            ),
            arm,
            N_SAMPLES if settings.temperature > 0 else 1,
        )

    return (*baselines, asking("informed"), asking("blind"))


def _said(words: Mapping[str, str], text: str, marked: Marked, author: str) -> Said:
    """Words as a model would answer them, so that they are judged in the same way."""
    answer = Answer(visual_evidence=text, comparison=text, region_id=marked.finding.region.region_id, **words)
    return _from_answer(answer, marked, author)


def _from_answer(answer: Answer, marked: Marked, author: str) -> Said:
    return Said(answer.words, checked_sentences(answer, marked.finding.facts, author, None))
