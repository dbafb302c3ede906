"""Which words of which prompt drove a region: leave-one-word-out on the region's similarity to the phrase.

A word's relevance is the cosine of the region to the phrase minus that to the phrase without the word. Chosen over
gradients in the text tower because it is the model's own number asked twice: it does not saturate, needs no choice of
layer, counts a word of several tokens once, and a reader can repeat it with ``explainvad prompts``. What it does not
show is what words do together: two that say the same hide one another.
"""

from __future__ import annotations

import numpy as np

from explainvad.types import PhraseRelevance, PromptedRegion, WordRelevance

PHRASES = 3  # of each kind that are taken apart


def phrase_relevance(
    scorer: str,
    region: PromptedRegion,
    most: int = PHRASES,
) -> tuple[PhraseRelevance, ...]:
    """The phrases that tell the region from the rest of the image best, ``most`` of each kind, with their words.

    Args:
        scorer: whose phrases they are.
        region: its embedding, the phrases, and the text encoder.
        most: phrases of each kind, >= 1.

    Anomalous phrases come first, ordered by how much nearer the region is to them than the rest of the image is; of the
    normal ones those that it is least near to.
    """
    phrases, stands_out = region.phrases, region.similarity - region.elsewhere
    order = np.argsort(-stands_out, kind="stable")
    anomalous = [int(i) for i in order if phrases[i][1]][:most]
    normal = [int(i) for i in order[::-1] if not phrases[i][1]][:most]
    found = []
    for i in (*anomalous, *normal):
        text, kind = phrases[i]
        words = text.split()
        shorter = [" ".join(words[:n] + words[n + 1 :]) for n in range(len(words))]
        cosines = region.embed([text, *shorter]) @ region.region
        relevance = tuple(WordRelevance(w, float(cosines[0] - c)) for w, c in zip(words, cosines[1:], strict=True))
        found.append(PhraseRelevance(scorer, text, kind, float(cosines[0]), float(region.elsewhere[i]), relevance))
    return tuple(found)
