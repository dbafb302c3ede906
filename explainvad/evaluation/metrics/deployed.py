"""A threshold as it is deployed: set before the test, and able to prove it.

F1 at a threshold is only worth something where no test score helped to choose that threshold. So a bare number is not
accepted: a threshold carries the contents (sha256) of all images that it was set on, and refuses to be measured on any
of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from explainvad.errors import LotError


@dataclass(frozen=True, slots=True, eq=False)
class DeployedThreshold:
    """An image (or pixel) is called defective when its score is above ``value``.

    ``rule`` says in words how it was set, ``images`` on what: the sha256 of each file's bytes, with its name.
    """

    value: float
    rule: str
    images: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.images:
            raise LotError(f"the threshold {self.value:g} ({self.rule}) does not say which images it was set on")

    def refuse(self, sha256: str | None, name: str) -> None:
        """Raise LotError, naming both files, if the test image ``name`` is one that this threshold was set on."""
        if sha256 is None:
            raise LotError(f"{name}: its sha256 must be known, to show that the threshold was not set on it")
        if sha256 in self.images:
            raise LotError(
                f"{name} has the same content as {self.images[sha256]}, on which the threshold {self.value:g} was set "
                f"({self.rule}): test on images that took no part in it"
            )
