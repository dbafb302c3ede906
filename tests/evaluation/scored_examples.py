"""Scored images made from random numbers: groups of two pictures, defects that stand out more or less."""

from __future__ import annotations

import numpy as np

from explainvad.evaluation.scored import GOOD, ScoredImages


def scored_images(n_good_groups: int = 170, n_bad_groups: int = 60, shift: float = 2.5, seed: int = 0) -> ScoredImages:
    """Two scorers with members, one gate; the pictures of a group share most of what makes their scores."""
    rng = np.random.default_rng(seed)
    n_groups = n_good_groups + n_bad_groups
    group = np.repeat(np.arange(n_groups), 2)
    bad = group >= n_good_groups
    cause = 0.9 * rng.standard_normal(n_groups)[group] + 0.4 * rng.standard_normal(len(group)) + shift * bad
    values = {name: cause + 0.3 * rng.standard_normal(len(group)) for name in ("bank", "decoder")}
    members = {n: (v[:, None] + 0.2 * rng.standard_normal((len(v), 4))).astype(np.float32) for n, v in values.items()}
    kinds = np.where(bad, np.where(group % 2 == 0, "dent", "scratch"), GOOD)
    sizes = np.where(bad, rng.uniform(5, 50, len(group)), 0.0)
    features = {"exposure": rng.normal(120, 4, len(group))}
    return ScoredImages(np.array([f"part-{g}" for g in group]), kinds, sizes, values, members, features)
