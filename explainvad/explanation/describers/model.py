"""Asks a language model about each region, and keeps to what was measured where it does not answer as it must."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from explainvad.explanation.describers.answer import Answer, read_answer
from explainvad.explanation.describers.asking import (
    REASON_LENGTH,
    InvalidAnswerError,
    NoAnswerError,
    Question,
    Reply,
    Respondent,
    one_line,
)
from explainvad.explanation.describers.checking import checked_sentences
from explainvad.explanation.describers.pictures import region_pictures
from explainvad.explanation.describers.prompt import UNNAMED, region_question
from explainvad.explanation.describers.prompt_hash import prompt_hash
from explainvad.explanation.describers.store import AnswerStore
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import Alignment, Finding, ImageRecord, InspectionImage, Progress, WordProbability

GIVEN_UP = 5  # failures in a row after which a model is not asked again in this run
REASONS_SHOWN = 5  # of a lot; the others are counted
HASH_SHOWN = 12  # hex digits in an author line


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A valid answer, and by field the probabilities of its chosen words, where the model tells them."""

    answer: Answer
    word_probabilities: Mapping[str, WordProbability]


class ModelDescriber:
    """Adds what a model says to findings that hold the measured sentences already.

    ``author`` is printed beside each sentence, ``fallback`` begins each line on what was not described. One object
    serves one lot: it counts its time and its failures. ``progress`` counts its regions.
    """

    def __init__(
        self,
        respondent: Respondent,
        *,
        part: str | None,
        arm: str,
        picture_px: int,
        minutes: float,
        timeout: float,
        store: AnswerStore,
        progress: Progress | None = None,
    ) -> None:
        self._respondent, self._arm, self._side, self._store = respondent, arm, picture_px, store
        self._progress = progress
        self._part = respondent.cleaned(part) if part else UNNAMED
        self._timeout, self._left, self._budget = timeout, 60 * minutes, f"{minutes:g} min"
        self._failed_in_a_row, self._found, self._done = 0, 0, 0
        self.label = respondent.label
        self.author = f"{respondent.author}; prompt {prompt_hash(arm)[:HASH_SHOWN]}, {arm}"
        self.unavailable = respondent.unavailable()

    def describe(
        self,
        image: InspectionImage,
        measured: Sequence[Finding],
        reference: bytes,
        alignment: Alignment | None = None,
    ) -> tuple[Finding, ...]:
        """Return the findings of ``image`` with the sentences of the model behind the measured ones.

        ``reference`` is the picture of the nearest reference (JPEG), ``alignment`` how it registers. Where the model
        gives no valid answer, the measured sentences stand alone, and their author line says why.
        """
        ids = tuple(finding.region.region_id for finding in measured)
        self._found += len(ids)
        begin = time.monotonic()
        until = begin + self._left

        def described(finding: Finding) -> Finding:
            try:
                answered = self._answer(image, finding, ids, reference, alignment, until)
            except NoAnswerError as error:
                reason = one_line(str(error), REASON_LENGTH)
                author = _unanswered_author(self.label, reason)
                return replace(finding, sentences=tuple(replace(s, author=author) for s in finding.sentences))
            echo = f"measured facts, repeated by {self.label}" if self._arm == "informed" else None
            said = checked_sentences(answered.answer, finding.facts, self.author, echo)
            sentences = (*finding.sentences, *said)
            return replace(finding, sentences=sentences, word_probabilities=answered.word_probabilities)

        findings: list[Finding] = []
        with ThreadPoolExecutor(max(1, min(self._respondent.at_once, len(ids)))) as pool:
            for finding in pool.map(described, measured):
                findings.append(finding)
                self._done += 1
                if self._progress:
                    self._progress("describing regions", self._done, self._found)
        self._left -= time.monotonic() - begin
        return tuple(findings)

    def ask(
        self,
        image: InspectionImage,
        finding: Finding,
        ids: tuple[str, ...],
        reference: bytes,
        alignment: Alignment | None = None,
        sample: int = 0,
    ) -> Answered:
        """The answer itself about one of the regions ``ids``; arguments as of :meth:`describe`. Raises NoAnswerError.

        ``sample`` counts answers to the same question: of a model that samples, each is drawn anew.
        """
        begin = time.monotonic()
        try:
            return self._answer(image, finding, ids, reference, alignment, begin + self._left, sample)
        finally:
            self._left -= time.monotonic() - begin

    def fallbacks(self, records: Iterable[ImageRecord]) -> tuple[str, ...]:
        """How many regions of a lot the model did not describe, one line for each reason.

        Read from the records alone, so that a resumed run says the same. Without regions, whether it was there at all.
        """
        findings = [finding for record in records for finding in record.findings]
        start = _unanswered_author(self.label, "").removesuffix(")")
        reasons = Counter(
            finding.sentences[0].author.removeprefix(start).removesuffix(")")
            for finding in findings
            if finding.sentences and finding.sentences[0].author.startswith(start)
        )
        if not reasons and self.unavailable is not None:
            return (f"describer {self.label}: {self.unavailable}",)
        of = f"of {len(findings)} regions have measured sentences only"
        lines = [f"describer {self.label}: {n} {of}: {reason}" for reason, n in reasons.most_common(REASONS_SHOWN)]
        rest = reasons.most_common()[REASONS_SHOWN:]
        if rest:  # a server may give every failure words of its own
            n = sum(count for _, count in rest)
            lines.append(f"describer {self.label}: {n} {of} for {len(rest)} other reasons, beside them")
        return tuple(lines)

    def _answer(
        self,
        image: InspectionImage,
        finding: Finding,
        ids: tuple[str, ...],
        reference: bytes,
        alignment: Alignment | None,
        until: float,
        sample: int = 0,
    ) -> Answered:
        """A valid answer about one region, asked for at most twice. Raises NoAnswerError."""
        if self.unavailable is not None:
            raise NoAnswerError(self.unavailable)
        pictures = region_pictures(image, finding.region, reference, self._side, alignment)

        def valid(complaint: str | None = None) -> Answered:
            question = region_question(pictures, finding, ids, self._part, self._arm, complaint)
            question = replace(question, attempt=question.attempt + 2 * sample)  # each sample may be asked for twice
            return self._valid(question, finding.region.region_id, ids, until)

        try:
            return valid()
        except InvalidAnswerError as error:
            complaint = str(error)
        return valid(complaint)

    def _valid(self, question: Question, region_id: str, ids: tuple[str, ...], until: float) -> Answered:
        """The answer to a question, from the store where it was answered before. Only valid answers get there."""
        key = question.digest(self._respondent.identity)
        known = self._store.get(key)
        if known is not None:
            with suppress(InvalidAnswerError):
                return Answered(read_answer(known.text, region_id, ids), known.word_probabilities)
        reply = self._asked(question, until)
        answer = read_answer(reply.text, region_id, ids)
        self._store.put(key, reply)
        return Answered(answer, reply.word_probabilities)

    def _asked(self, question: Question, until: float) -> Reply:
        if self._failed_in_a_row >= GIVEN_UP:
            raise NoAnswerError(f"not asked any more after {GIVEN_UP} failures in a row")
        seconds = min(self._timeout, until - time.monotonic())
        if seconds <= 0:
            raise NoAnswerError(f"the time for descriptions ({self._budget} a lot) was used up")
        try:
            reply = self._respondent.answer(question, seconds)
        except NoAnswerError as error:
            # One that answers, if only wrongly, is there
            self._failed_in_a_row = 0 if isinstance(error, InvalidAnswerError) else self._failed_in_a_row + 1
            raise
        self._failed_in_a_row = 0
        return reply


def _unanswered_author(label: str, reason: str) -> str:
    """The author line of measured sentences that a model should have stood beside."""
    return f"{MeasuredDescriber.author} ({label}: {reason})"
