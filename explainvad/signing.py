"""Between record and report: a person signs the report of a run, and the run's ledger tells of it.

What is signed was verified first, and what is written was verified as well. A signature is appended: the bytes of the
report as it was rendered stay the beginning of the signed file, and earlier signatures stay valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from explainvad.errors import IntegrityError, SigningError, UsageError
from explainvad.record.ledger import LEDGER, utc_now
from explainvad.record.pdf_signatures import SignatureFacts, read_signatures
from explainvad.record.problems import Verification
from explainvad.record.run import Run
from explainvad.record.signings import Signing
from explainvad.record.storage import open_below, sha256_hex, storage_errors
from explainvad.record.verify import verify_run
from explainvad.record.verify_pdf import verify_pdf
from explainvad.report.pdf_signing import Statement, sign_pdf
from explainvad.report.signature_fields import MEANINGS, field_states
from explainvad.report.signing_keys import KeyFile, KeyToken, check_certificate
from explainvad.whole_files import sync_folder, write_whole

REPORT = "report.pdf"
OTHER = "other"  # the field for any meaning that has none of its own
LONGEST = {"--name": 48, "--meaning": 60, "--reason": 120}  # characters that the stamp has room for
_ASKED = "performed, reviewed, approved, or a meaning in words of your own"


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that is in place: ``path`` of the file, and what was signed by whom."""

    path: Path
    signing: Signing


def sign(
    target: str | Path,
    key: KeyFile | KeyToken,
    *,
    name: str,
    meaning: str,
    reason: str | None = None,
    timestamp_url: str | None = None,
) -> Signed:
    """Sign the PDF report of a finished run, or a PDF report by itself, in place.

    ``meaning`` is performed, reviewed, approved, or free text; each has one field on the cover. A run's ledger
    records the signature. A signing of a run that was cut short is finished by the same call.

    Raises UsageError for a key, text or field that does not serve, IntegrityError when the report is not what the
    record says, SigningError when the key or the time stamp server fails, StorageError when the file cannot be written.
    The report is then as it was.
    """
    statement = Statement(
        _text("--name", name),
        _text("--meaning", MEANINGS.get(meaning, meaning)),
        None if reason is None else _text("--reason", reason),
        utc_now(),
    )
    field = _field(meaning)
    if timestamp_url is not None and not timestamp_url.startswith(("http://", "https://")):
        raise UsageError(
            f"--timestamp-url expects an address that starts with https:// or http://, got {timestamp_url}"
        )
    path = Path(target)
    root = path if path.is_dir() else path.parent
    if path.is_dir() or (path.name == REPORT and (root / LEDGER).is_file()):
        return _sign_run(root, key, field, statement, timestamp_url)
    return _sign_file(path, key, field, statement, timestamp_url)


def _sign_run(
    root: Path, key: KeyFile | KeyToken, field: str, statement: Statement, timestamp_url: str | None
) -> Signed:
    with Run.reopen(root) as run:
        finished = run.complete_signing()
        if finished is not None and (finished.field, finished.name) == (field, statement.name):
            return Signed(root / finished.file, finished)
        if REPORT not in run.rendered:
            raise UsageError(f"{root} has no {REPORT} to sign; render it first: explainvad render {root}")
        _refuse_altered(verify_run(root))
        with storage_errors(root / REPORT), open_below(root, REPORT) as source:
            content = source.read()
        signed, signing = _signed(content, REPORT, key, field, statement, timestamp_url)
        run.add_signing(signing, signed)
    return Signed(root / REPORT, signing)


def _sign_file(
    path: Path, key: KeyFile | KeyToken, field: str, statement: Statement, timestamp_url: str | None
) -> Signed:
    _refuse_altered(verify_pdf(path))
    content = path.read_bytes()
    signed, signing = _signed(content, path.name, key, field, statement, timestamp_url)
    with storage_errors(path):
        write_whole(path, signed, path.with_name(f".{path.name}.partial"), mode=path.stat().st_mode & 0o777)
        sync_folder(path.parent)
    return Signed(path, signing)


def _signed(
    content: bytes,
    file: str,
    key: KeyFile | KeyToken,
    field: str,
    statement: Statement,
    timestamp_url: str | None,
) -> tuple[bytes, Signing]:
    """Sign ``content`` and prove the result before anyone else sees it."""
    states = field_states(content)
    if field not in states:
        raise UsageError(f"{file} has no signature field {field}: it was rendered by an older version; render it again")
    if states[field]:
        raise UsageError(f"{file} is signed already as “{statement.meaning}” (field {field}); nothing was changed")
    with key.open() as signer:
        check_certificate(signer.signing_cert, datetime.fromisoformat(statement.time))
        signed = sign_pdf(content, field, statement, signer, timestamp_url)
    facts = _proved(content, signed, field)
    signing = Signing(
        file=file,
        field=field,
        name=statement.name,
        meaning=statement.meaning,
        reason=statement.reason,
        time=statement.time,
        subject=facts.subject,
        fingerprint=facts.fingerprint,
        before=sha256_hex(content),
        after=sha256_hex(signed),
    )
    return signed, signing


def _proved(content: bytes, signed: bytes, field: str) -> SignatureFacts:
    """Return what verification reads from the new signature. Raises SigningError when it finds any fault."""
    found = read_signatures(signed)
    faults = [f"{signature.field}: {fault}" for signature in found for fault in signature.faults]
    if not signed.startswith(content):
        faults.append("the report's own bytes were changed")
    if faults:
        raise SigningError(f"the signature did not verify ({'; '.join(faults)}); it was discarded")
    return next(signature for signature in found if signature.field == field)


def _refuse_altered(verification: Verification) -> None:
    if not verification.ok:
        more = len(verification.problems) - 1
        also = f", and {more} more" if more else ""
        raise IntegrityError(f"only what verifies is signed. {verification.problems[0]}{also}; see explainvad verify")


def _field(meaning: str) -> str:
    if meaning in MEANINGS and meaning != OTHER:
        return meaning
    near = get_close_matches(meaning.lower(), [OTHER, *MEANINGS], n=1, cutoff=0.75)
    if near:
        raise UsageError(f"--meaning expects {_ASKED}, got {meaning!r}")
    return OTHER


def _text(option: str, text: str) -> str:
    """Return what is printed on the stamp. Raises UsageError unless it is printable and short enough."""
    stripped = text.strip()
    if not stripped or not stripped.isprintable() or len(stripped) > LONGEST[option]:
        raise UsageError(f"{option} expects 1 to {LONGEST[option]} printable characters, got {text!r}")
    return stripped
