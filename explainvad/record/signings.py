"""Signatures in the rendered report of a finished run, as its ledger tells them.

The signed file is first made durable beside the report (``report.pdf.signing``), then the ledger line is written, then
the file takes the report's place. So a signing that is cut short leaves either the report as it was, or a line
whose file lies ready: nothing is lost, and the next signing, or the same again, puts it in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_STAGED = ".signing"


@dataclass(frozen=True, slots=True)
class Signing:
    """One signature: who signed what, when and with which meaning; ``before`` and ``after`` are SHA-256 of the file."""

    file: str
    field: str
    name: str  # printed, of the person
    meaning: str
    reason: str | None
    time: str  # as the signature states it: ISO 8601, UTC
    subject: str  # of the certificate
    fingerprint: str  # SHA-256 of the certificate
    before: str
    after: str

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.meaning.strip():
            raise ValueError("a signature needs a printed name and a meaning")
        if self.before == self.after:
            raise ValueError("a signature changes the file")

    @property
    def stated(self) -> str:
        """Meaning and reason in one, as the signature in the file states them."""
        return self.meaning if self.reason is None else f"{self.meaning}: {self.reason}"


def staged_file(name: str) -> str:
    """Return where the signed file waits for its ledger line."""
    return f"{name}{_STAGED}"


def check_signing(signing: Signing, earlier: list[Signing], rendered: Mapping[str, str]) -> None:
    """Raise ValueError unless ``signing`` goes on from the file as it was recorded last, in an empty field."""
    if rendered.get(signing.file) != signing.before:
        raise ValueError(f"{signing.file} was signed in a state that no line before records: {signing.before}")
    if any((s.file, s.field) == (signing.file, signing.field) for s in earlier):
        raise ValueError(f"the field {signing.field} of {signing.file} is signed already")
