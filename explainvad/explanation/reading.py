"""How a sentence is read: its clauses, what each clause speaks of, and what is denied or merely supposed.

Reading is conservative: only a clause whose grammatical subject is the region can make a claim about it.
"The reference is darker" or "a right angle" makes none, and what makes no claim stays unverifiable.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from explainvad.types import ClaimStatus, RegionFacts

# A judge says what was measured and how the statement fares; None where the words turn out to claim nothing.
Judgement = tuple[str, ClaimStatus]
Judge = Callable[[re.Match[str], RegionFacts], Judgement | None]


@dataclass(frozen=True, slots=True)
class Reader:
    """One kind of claim: how it is written, and how it is judged."""

    kind: str
    pattern: re.Pattern[str]
    judge: Judge


@dataclass(frozen=True, slots=True)
class Clause:
    """A stretch of a sentence, ``start`` to ``stop``, and whether it asserts something of the region."""

    start: int
    stop: int
    asserts: bool


# Words for the region that say no more than that it is one, and words that also name a defect.
NEUTRAL_NOUN = r"(?:region|area|spot|mark|anomaly|patch|finding|detection|indication|blob|streak)"
DEFECT_NOUN = (
    r"(?:defect|flaw|scratch|scuff|dent|stain|crack|chip|dust|particle|contamination|discolou?ration|blemish"
    r"|pit|pore|void|bubble|burr|smear|smudge|deposit|inclusion|fib(?:re|er)|fracture|corrosion|rust|scrape)"
)
REGION_NOUN = rf"(?:{NEUTRAL_NOUN}|{DEFECT_NOUN})"
PART_NOUN = r"(?:part|component|workpiece|piece|product|item|sample|specimen)"
IMAGE_NOUN = r"(?:image|picture|photo|photograph|frame|field of view)"

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
MODIFIER = (
    r"(?:(?P<below>less than|fewer than|under|below|at most|up to|no more than)"
    r"|(?P<above>more than|over|above|at least|no less than)"
    r"|(?P<about>about|around|roughly|approximately|approx\.?|nearly|almost|some|~))"
)

_PREPOSITION = (
    r"(?:of|in|into|on|onto|at|near|from|to|around|with|by|for|between|beside|behind|than|under|above|below|next"
    r"|like|unlike|towards?|along|across|without|as)"
)
_VERB = (
    r"\b(?:is|are|was|were|be|lies|lie|sits|measures|spans|covers|occupies|has|have|had|shows|show|exhibits|displays"
    r"|contains|encloses|appears|looks|seems|extends|stretches|reaches|runs|touches|abuts|spreads|leaves|starts"
    r"|stands|differs|can|does|do|did|isn't|doesn't|aren't|located|situated|positioned|found|visible|makes|takes)\b"
)
_BOUNDARY = re.compile(
    r"[;:]|,?\s+(?:but|while|whereas|although|though|because|since|which|where|as)\b|,\s+(?:and|so)\b|\s[–—-]\s"
    r"|,\s+(?=(?:possibly|perhaps|maybe|probably|likely)\b)"
    rf"|\s+and\s+(?=(?:the|its|a|an|this|that|there|it)\s[^,;]*?{_VERB})"
)
_OPENING = re.compile(r"\s*(?:while|whereas|although|though|because|since|as|when)\b[^,]*,")  # a leading sub-clause
_SUPPOSED = re.compile(
    r"\b(?:if|whether|may|might|could|would|should|must|will|cannot|can't|possibly|perhaps|maybe|likely|probably"
    r"|suggests?|expected|normally|usually|typically|unless|until|assum\w+|suppos\w+|claimed|alleged|please"
    r"|unclear|unknown|as if|not possible|impossible)\b"
    r"|\?|^\s*(?:compare|check|verify|ensure)\b|^\s*(?:were|had)\s+(?:it|this|that|the)\b"
)
_ASIDE = re.compile(  # of how the picture came about, or of another picture
    r"\b(?:inspected|photographed|imaged|captured|recorded|reviewed|produced|manufactured"
    r"|cropped|resized|rescaled|enlarged|magnified|zoomed|takes? place"
    r"|(?<!than the )(?<!from the )reference)\b"
)
# "The surrounding area" and "the upper area" are not the region.
_ELSEWHERE = (
    r"(?:surrounding|neighbou?ring|adjacent|other|remaining|background|nominal|normal|reference|whole|entire|outer"
    r"|inner|upper|lower|top|bottom|left|right|central|middle|no|each|every|any|some|an?|the|this|its)"
)
_ADJECTIVES = rf"(?:(?!{_PREPOSITION}\b|{_ELSEWHERE}\b)[\w'-]+,? ){{0,5}}?"
_NOUN_PHRASE = rf"(?:(?:a|an|one|the|this|that|another|single)\s+)?{_ADJECTIVES}{REGION_NOUN}"
_SUBJECT = re.compile(
    rf"(?:^|,\s*|\b(?P<before>[\w']+)\s+(?=(?:a|an|one|the|this|that)\s))"
    rf"{_NOUN_PHRASE}(?:\s+r?\d+)?(?:\s+(?:that|in|at|on|near|with)\b.*)?$"
)
_PRONOUN = re.compile(
    r"^(?:(?:here|overall|also|then|and|again),?\s+)*(?:it|this|that|they|(?:the\s+)?r\d+)(?:\s+(?:also|clearly|only))?$"
)
_ATTRIBUTE = re.compile(
    r"^(?:its|the|their|the region's|the mark's)\s+(?:long\s+|main\s+|overall\s+|measured\s+)?"
    r"(?:length|width|size|area|shape|colou?r|brightness"
    r"|outline|contour|form|orientation|position|location|axis|extent|diameter)"
    rf"(?:\s+of\s+(?:the|this)\s+{REGION_NOUN})?$"
)
_SHOWING = re.compile(
    rf"^(?:there|(?:the|this)\s+(?:.*\bof the\s+)?(?:{PART_NOUN}|{IMAGE_NOUN}|overlay|surface))\s+"
    rf"(?:is|shows|has|contains|exhibits|displays)\s+(?:also\s+)?(?:a|an|one|another)\s+{_ADJECTIVES}{REGION_NOUN}\b"
)
_NEGATION = re.compile(
    r"\b(?:not|no|never|without|neither|nor|hardly|nowhere|cannot|free of|lacks|rather than|instead of)\b|n't\b"
)
_WEAK_NEGATION = re.compile(
    r"\bnot (?:only|just|merely|much|very|entirely|completely|exactly|quite|fully|perfectly|as|so|all|far)\b"
)
_RELATED = re.compile(
    r"\b(?:next to|beside|behind|below|above|under|underneath|beyond|opposite|away from"
    r"|(?:near|around|between|like|unlike|resembles|from|in|within|inside|on) (?:an?|another))\b"
)
_SCOPE_END = re.compile(r"[,(]|\b(?:and|but|or rather)\b")

_PLAIN = str.maketrans({"−": "-", "×": "x", "’": "'", "\u00a0": " ", "\u202f": " ", "\t": " ", "\n": " ", "Δ": "δ"})


def plain(text: str) -> str:
    """Lower the case and unify signs, character by character, so that positions stay the same."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text.translate(_PLAIN))


def clauses(text: str) -> list[Clause]:
    """Cut a :func:`plain` sentence into clauses. A clause without a subject continues the one before."""
    cuts = [0]
    opening = _OPENING.match(text)
    if opening:
        cuts += [opening.end(), opening.end()]
    for boundary in _BOUNDARY.finditer(text, cuts[-1]):
        cuts += [boundary.start(), boundary.end()]
    cuts.append(len(text))
    found: list[Clause] = []
    continued: bool | None = None
    for start, stop in list(pairwise(cuts))[::2]:
        clause = text[start:stop]
        continued = about_region(clause, continued)
        found.append(Clause(start, stop, continued and not supposed(clause) and not _ASIDE.search(clause)))
    return found


def supposed(clause: str) -> bool:
    """Whether a :func:`plain` clause only supposes, asks or asks for what it says."""
    return _SUPPOSED.search(clause) is not None


def about_region(clause: str, continued: bool | None) -> bool:
    """Whether the subject of ``clause`` is the region.

    ``continued`` is the answer for the clause before, None at the start of a sentence.
    """
    clause = clause.strip(" .!,")
    if _SHOWING.match(clause):
        return True
    verb = re.search(_VERB, clause)
    subject = re.sub(r"\([^)]*\)", "", clause[: verb.start()] if verb else clause).strip()
    if verb and not subject:  # "Located in the upper left", "and covers 3 % of the part"
        return not re.match("be|do|have|had", verb[0]) if continued is None else continued
    if verb and re.match(r"(?:.*,)?\s*there$", subject):
        following = clause[verb.end() :].strip()
        return re.match(rf"(?:also\s+|to be\s+)?{_NOUN_PHRASE}\b", following) is not None
    if _PRONOUN.match(subject.split(", ")[-1]) or _ATTRIBUTE.match(subject):
        return True
    head, _, apposition = subject.partition(",")  # "a dark area, 34 px long, is visible"
    noun = _SUBJECT.search(subject) or (
        None if re.search(r"\b(?:the|an?|its)\s", apposition) else _SUBJECT.search(head)
    )
    if noun is not None:
        return noun["before"] is None or not re.fullmatch(_PREPOSITION, noun["before"])
    return verb is None and bool(continued)


def negated(clause: str, position: int) -> bool | None:
    """Whether the words at ``position`` are denied.

    None where they cannot be taken as said of the region: a partial denial ("not much darker"), or the
    description of something beside it ("next to a dark spot").
    """
    scope = clause[:position]
    ends = [end.end() for end in _SCOPE_END.finditer(scope)]
    scope = scope[ends[-1] if ends else 0 :]
    if _WEAK_NEGATION.search(scope) or _RELATED.search(re.split(r"\band\b", clause[:position])[-1]):
        return None
    return len(_NEGATION.findall(scope)) % 2 == 1


def judge_number(match: re.Match[str], stated: str, measured: float) -> ClaimStatus:
    """Compare a stated number with a measured one, to within the rounding of what is stated.

    Within 10 % it is PARTLY right, within 10 % of "about" it is SUPPORTED; "less than" and "at least" are bounds.
    ``match`` may hold the groups of ``MODIFIER``.
    """
    value = float(stated.replace(",", ""))
    decimals = len(stated.partition(".")[2])
    rounding = 0.5 * 10.0**-decimals + 1e-9
    modifiers = match.groupdict()
    if modifiers.get("below"):
        return _either(measured <= value + rounding)
    if modifiers.get("above"):
        return _either(measured >= value - rounding)
    error, near = abs(value - measured), 0.1 * abs(measured)
    if error <= (max(rounding, near) if modifiers.get("about") else rounding):
        return ClaimStatus.SUPPORTED
    return ClaimStatus.PARTLY if error <= near else ClaimStatus.CONTRADICTED


def _either(holds: bool) -> ClaimStatus:
    return ClaimStatus.SUPPORTED if holds else ClaimStatus.CONTRADICTED
