"""Checks sentences against measured facts, whoever wrote them.

A sentence is read clause by clause with anchored patterns. What no pattern reads is unverifiable, never
true and never false: cause, severity and the kind of defect are not measured, so a sentence that names
them cannot be more than partly supported. Sentence status: CONTRADICTED if any claim is; SUPPORTED if all
claims are and nothing else is said; UNVERIFIABLE if no claim can be checked; otherwise PARTLY.
"""

from __future__ import annotations

import re

from explainvad.explanation import colour_claims, form_claims, place_claims
from explainvad.explanation.reading import DEFECT_NOUN, NEUTRAL_NOUN, clauses, negated, plain
from explainvad.types import Claim, ClaimStatus, RegionFacts, Sentence

MAX_LENGTH = 1000  # characters; a longer sentence is not read, so that no text can make reading slow
READERS = place_claims.READERS + form_claims.READERS + colour_claims.READERS

_KEYWORDS = ("word", "shape", "direction")  # groups that a denial inside the match would precede
_OPPOSITE = {
    ClaimStatus.SUPPORTED: ClaimStatus.CONTRADICTED,
    ClaimStatus.CONTRADICTED: ClaimStatus.SUPPORTED,
    ClaimStatus.PARTLY: ClaimStatus.PARTLY,
}

# Words that assert nothing by themselves.
_EMPTY = re.compile(
    r"(?:an?|the|this|that|it|its|there|here|which|and|or|but|nor|neither|while|also|only|just|both|then|overall"
    r"|is|are|was|be|being|has|have|does|do|with|of|in|into|on|at|to|from|by|than|as|near|along|within|across|not|no"
    r"|about|around|roughly|approximately|mainly|mostly|clearly|visibly|slightly|somewhat|measurably|visible|can|seen"
    r"|lies|lie|lying|sits|located|situated|positioned|found|measures|covers|shows|contains|appears|looks|seems"
    r"|reaches|reaching|runs|extends|size|length|width|area|shape|outline|colou?r|brightness|position|location"
    r"|orientation|long axis|axis|compared?|relative|surroundings?|surrounding|reference|image|picture|photo"
    rf"|part|component|marked|detected|highlighted|flagged|anomalous|one|r\d+|{NEUTRAL_NOUN})"
)
_WORD = re.compile(r"\d[\d.,]*\d|\d|[^\W\d_](?:[\w'-]*\w)?")
_UNMEASURED = (
    ("cause", re.compile(
        r"\b(?:caus\w+|due to|because|result\w*|from \w+ing|owing to|stems?|origin\w*|consistent with)\b"
    )),
    ("severity", re.compile(
        r"\b(?:sever\w+|minor|major|critical\w*|cosmetic|harmless|acceptable|unacceptable|serious\w*|dangerous|fatal"
        r"|functional|reject\w*|negligible|concern\w*)\b"
    )),
    ("defect type", re.compile(rf"\b{DEFECT_NOUN}(?:s|es|ed|ing)?\b")),
    ("number", re.compile(r"\d")),
)  # fmt: skip


def check_sentence(text: str, author: str, facts: RegionFacts) -> Sentence:
    """Read every claim of one sentence and compare it with ``facts``.

    A claim's ``stated`` quotes the sentence, after "denied:" where the sentence says the opposite; its
    ``measured`` is "not measured" where nothing could be checked.
    """
    if len(text) > MAX_LENGTH:
        return Sentence(text=text, author=author, status=ClaimStatus.UNVERIFIABLE, claims=())
    reading = plain(text)
    claims: list[Claim] = []
    unread = list(reading)
    for clause in clauses(reading):
        if not clause.asserts:
            continue
        words = reading[clause.start : clause.stop]
        for reader in READERS:
            for match in reader.pattern.finditer(words):
                keyword = next((name for name in _KEYWORDS if name in match.groupdict()), 0)
                denied = negated(words, match.start(keyword))
                judgement = None if denied is None else reader.judge(match, facts)
                if judgement is None:
                    continue
                measured, status = judgement
                start, stop = clause.start + match.start(), clause.start + match.end()
                stated = text[start:stop].strip(" ,")
                if denied:
                    stated, status = f"denied: {stated}", _OPPOSITE[status]
                claims.append(Claim(reader.kind, stated, measured, status))
                unread[start:stop] = " " * (stop - start)
    claims += _unverifiable("".join(unread), text)
    return Sentence(text=text, author=author, status=_overall(claims), claims=tuple(claims))


def verify(text: str, author: str, facts: RegionFacts) -> tuple[Sentence, ...]:
    """Split free text into sentences and check each."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z])", text.strip())
    return tuple(check_sentence(sentence, author, facts) for sentence in sentences if sentence)


def _unverifiable(unread: str, text: str) -> list[Claim]:
    """Turn what no pattern could read into at most one unverifiable claim."""
    words = [word for word in _WORD.finditer(unread) if not _EMPTY.fullmatch(word[0])]
    if not words:
        return []
    rest = " ".join(text[word.start() : word.end()] for word in words)
    kind = next((kind for kind, pattern in _UNMEASURED if pattern.search(unread)), "other")
    return [Claim(kind, rest, "not measured", ClaimStatus.UNVERIFIABLE)]


def _overall(claims: list[Claim]) -> ClaimStatus:
    statuses = {claim.status for claim in claims}
    if ClaimStatus.CONTRADICTED in statuses:
        return ClaimStatus.CONTRADICTED
    if statuses <= {ClaimStatus.UNVERIFIABLE}:
        return ClaimStatus.UNVERIFIABLE
    return ClaimStatus.SUPPORTED if statuses == {ClaimStatus.SUPPORTED} else ClaimStatus.PARTLY
