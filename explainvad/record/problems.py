"""What verification says: the problems that were found, and what was checked."""

from __future__ import annotations

from dataclasses import dataclass

from explainvad.errors import IntegrityError
from explainvad.record.ledger import LedgerError, printable


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as recorded. ``where`` is "ledger.jsonl line 7" or a file of the run folder."""

    where: str
    what: str
    expected: str | None = None
    got: str | None = None

    @classmethod
    def of(cls, error: LedgerError) -> Problem:
        """What a broken ledger line says of itself."""
        return cls(error.where, error.what, error.expected, error.got)

    def __str__(self) -> str:
        detail = "" if self.expected is None else f" (expected {self.expected}, got {self.got})"
        return printable(f"{self.where}: {self.what}{detail}")


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and every problem found: the one nearest the start of the chain first.

    ``head_hash`` is the results head (64 hex digits), None when the run is not finished.
    """

    checked: tuple[str, ...]
    problems: tuple[Problem, ...]
    head_hash: str | None

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the record."""
        return not self.problems


def reason(error: OSError | IntegrityError) -> str:
    """Say why a file could not be read."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    return str(error) if isinstance(error, IntegrityError) else f"cannot be read: {error.strerror or error}"
