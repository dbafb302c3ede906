"""The signatures in a PDF: who signed what and when, and whether all of the file is still what was signed.

A signature does not cover its own bytes. These are therefore read strictly: hexadecimal digits in one notation, padded
with zeros, that hold nothing but what was checked. :mod:`explainvad.signing` lists all certificates that come along in
what is signed. Others, and those of time stamp servers, are checked as far as the file holds their issuers; beyond that
they count only where trusted certificates are named.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainvad.errors import UsageError
from explainvad.record.pdf_revisions import foreign_changes

if TYPE_CHECKING:
    from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
    from pyhanko.sign.validation.status import PdfSignatureStatus

UNCHECKED = "not checked: name the trusted certificates with --trust"
_TIME_STAMP = "signature_time_stamp_token"
_NAMED = 3  # changes that a message names
_HEX = re.compile(rb"<(?:[0-9a-f]*|[0-9A-F]*)>")


@dataclass(frozen=True, slots=True)
class SignatureFacts:
    """One signature as it was found. ``faults`` say what is wrong with it; empty when nothing is.

    ``trust`` says whether the certificate leads to a trusted one, ``coverage`` how much of the file is signed.
    """

    field: str
    name: str
    reason: str
    time: str  # stated by the signer, ISO 8601 in UTC
    stamped: str | None  # by a time stamp authority, the same form
    subject: str
    fingerprint: str  # SHA-256 of the certificate
    coverage: str
    trust: str
    faults: tuple[str, ...]


def read_certificates(paths: Sequence[str | Path]) -> list[bytes]:
    """Read certificates, PEM (several in a file) or DER, as DER. Raises UsageError that names the file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    found = []
    for path in map(Path, paths):
        try:
            data = path.read_bytes()
            pem = b"-----BEGIN" in data
            read = x509.load_pem_x509_certificates(data) if pem else [x509.load_der_x509_certificate(data)]
        except OSError as error:
            raise UsageError(f"the certificate {path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise UsageError(f"{path} holds no certificate, expected one in PEM or DER ({error})") from error
        found += [certificate.public_bytes(Encoding.DER) for certificate in read]
    return found


def is_signed(content: bytes) -> bool:
    """Whether there may be a signature in the file: every one has a ByteRange that no stream hides."""
    return b"/ByteRange" in content


def read_signatures(content: bytes, trust: Sequence[bytes] = ()) -> list[SignatureFacts]:
    """Check all signatures of a PDF, oldest first; ``trust`` holds certificates (DER) that are trusted as roots.

    Raises ValueError when the file or a signature cannot be read.
    """
    from pyhanko.pdf_utils.reader import PdfFileReader

    for name in ("pyhanko", "pyhanko_certvalidator"):
        logging.getLogger(name).addHandler(logging.NullHandler())  # what they would print is in the facts
    try:
        reader = PdfFileReader(BytesIO(content))
        found = list(reader.embedded_signatures)
        return [
            _facts(content, signature, len(found) - number, trust) for number, signature in enumerate(found, start=1)
        ]
    except Exception as error:  # a damaged signature can fail in any way
        raise ValueError(str(error) or type(error).__name__) from error


def _facts(content: bytes, signature: EmbeddedPdfSignature, later: int, trust: Sequence[bytes]) -> SignatureFacts:
    signed = signature.sig_object
    certificate = signature.signer_cert
    stated = signature.self_reported_timestamp
    status = _validated(signature, trust)
    stamp = status.timestamp_validity
    coverage, uncovered = _coverage(content, signature, status, later)
    faults = [*_integrity_faults(status), *uncovered, *_stray_bytes(content, signature)]
    trusted, untrusted = _trust(status, trust)
    return SignatureFacts(
        field=str(signature.field_name),
        name=str(signed.get("/Name", "")),
        reason=str(signed.get("/Reason", "")),
        time=_utc(stated) if stated else "",
        stamped=_utc(stamp.timestamp) if stamp else None,
        subject=certificate.subject.human_friendly,
        fingerprint=certificate.sha256.hex(),
        coverage=coverage,
        trust=trusted,
        faults=(*faults, *untrusted),
    )


def _validated(signature: EmbeddedPdfSignature, trust: Sequence[bytes]) -> PdfSignatureStatus:
    """Validate now; where only the signer's certificate has ended, at the time that a trusted time stamp proves."""
    status = _validated_at(signature, trust, None)
    stamp = status.timestamp_validity
    if stamp is not None and stamp.trusted and not status.trusted:
        status = _validated_at(signature, trust, stamp.timestamp)
    return status


def _validated_at(
    signature: EmbeddedPdfSignature, trust: Sequence[bytes], moment: datetime | None
) -> PdfSignatureStatus:
    from asn1crypto.x509 import Certificate
    from pyhanko.sign.validation.pdf_embedded import async_validate_pdf_signature
    from pyhanko.sign.validation.settings import KeyUsageConstraints
    from pyhanko_certvalidator import ValidationContext

    roots = [Certificate.load(certificate) for certificate in trust]

    def context(moment: datetime | None) -> ValidationContext:
        return ValidationContext(trust_roots=roots, allow_fetching=False, moment=moment)

    usage = KeyUsageConstraints(key_usage={"digital_signature", "non_repudiation"}, match_all_key_usages=False)
    return asyncio.run(
        async_validate_pdf_signature(
            signature,
            signer_validation_context=context(moment),
            ts_validation_context=context(None),
            key_usage_settings=usage,
            skip_diff=True,
        )
    )


def _integrity_faults(status: PdfSignatureStatus) -> Iterator[str]:
    if not status.intact:
        yield "what was signed was altered afterwards"
    if not status.valid:
        yield "the signature is not one of this certificate's key"
    stamp = status.timestamp_validity
    if stamp is not None and not (stamp.intact and stamp.valid):
        yield "the time stamp is not one of this signature"


def _coverage(
    content: bytes, signature: EmbeddedPdfSignature, status: PdfSignatureStatus, later: int
) -> tuple[str, list[str]]:
    """Say what is signed, and what should be but is not; ``later`` signatures follow this one."""
    from pyhanko.sign.validation.status import SignatureCoverageLevel

    covered = status.coverage
    if covered == SignatureCoverageLevel.ENTIRE_FILE:
        return "covers the whole file", []
    if covered != SignatureCoverageLevel.ENTIRE_REVISION:
        return "covers only parts of the file", ["parts of the file that it should cover are not signed"]
    if not later:
        return "covers the file but for its end", ["bytes were added behind the last signature"]
    changes = list(foreign_changes(content[: signature.byte_range[2] + signature.byte_range[3]], content))
    if changes:
        named = f"{', '.join(changes[:_NAMED])}{', ...' if len(changes) > _NAMED else ''}"
        return "covers an earlier state", [f"more than further signatures was changed afterwards: {named}"]
    return f"covers all before the {'next signature' if later == 1 else f'{later} signatures'} that followed", []


def _trust(status: PdfSignatureStatus, trust: Sequence[bytes]) -> tuple[str, list[str]]:
    """Say whether the certificates lead to trusted ones. Whether one was revoked cannot be known offline."""
    if not trust:
        return UNCHECKED, []
    faults = []
    if not status.trusted:
        indication = status.trust_problem_indic
        why = f" ({indication.standard_name.replace('_', ' ').lower()})" if indication else ""
        faults.append(f"its certificate does not lead to a trusted one, or was not valid at the time{why}")
    stamp = status.timestamp_validity
    if stamp is not None and not stamp.trusted:
        faults.append("its time stamp does not come from a trusted authority")
    return ("not trusted" if faults else "leads to a trusted certificate; revocation is not checked"), faults


def _stray_bytes(content: bytes, signature: EmbeddedPdfSignature) -> Iterator[str]:
    """Find what a change within the signature's own bytes, which nothing signs, could leave behind."""
    from asn1crypto import cms, parser

    begin, end = signature.byte_range[1], signature.byte_range[2]
    if _HEX.fullmatch(content[begin:end]) is None:
        yield "its hexadecimal digits are not written as one number"
    data = signature.pkcs7_content
    length = parser.peek(data)
    own = cms.ContentInfo({"content_type": "signed_data", "content": signature.signed_data}).dump()
    if data[:length] != own or data[length:].strip(b"\0"):
        yield "there is data around the signature's own"
    unsigned = signature.signer_info["unsigned_attrs"]
    if any(attribute["type"].native != _TIME_STAMP for attribute in unsigned or ()):
        yield "it carries unsigned attributes other than a time stamp"
    yield from _loose_parts(signature.signed_data, "")
    for token in _time_stamps(signature):
        yield from _loose_parts(token, "its time stamp: ")


def _loose_parts(signed_data: Any, where: str) -> Iterator[str]:
    """Check those members of a CMS structure that neither its signature nor the validator looks at."""
    (info,) = signed_data["signer_infos"]
    if [a.dump() for a in signed_data["digest_algorithms"]] != [info["digest_algorithm"].dump()]:
        yield f"{where}it names other digest algorithms than it uses"
    plain = signed_data["encap_content_info"]["content_type"].native == "data"
    if (signed_data["version"].native, info["version"].native) != ("v1" if plain else "v3", "v1"):
        yield f"{where}it claims a version that it does not have"
    signer = info["sid"].chosen.dump()  # byte by byte: the validator compares names without regard to case
    if not any(_identifier(choice.chosen) == signer for choice in signed_data["certificates"]):
        yield f"{where}it names its certificate in another way than the certificate itself"
    yield from (f"{where}{fault}" for fault in _chain_faults(signed_data))


def _identifier(certificate: Any) -> bytes:
    from asn1crypto.cms import IssuerAndSerialNumber

    members = {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
    return bytes(IssuerAndSerialNumber(members).dump())


def _chain_faults(signed_data: Any) -> Iterator[str]:
    """Check the certificates that come along: against the signed list of them, else each against its issuer's."""
    from cryptography import x509
    from pyhanko.sign.general import check_ess_certid
    from pyhanko.sign.validation.generic_cms import get_signing_cert_attr

    listed = get_signing_cert_attr(signed_data["signer_infos"][0]["signed_attrs"])
    if listed is not None and len(listed["certs"]) > 1:
        for choice in signed_data["certificates"]:
            if not any(check_ess_certid(choice.chosen, entry) for entry in listed["certs"]):
                yield f"a certificate that came with it was altered: {choice.chosen.subject.human_friendly}"
        return
    certificates = [x509.load_der_x509_certificate(choice.chosen.dump()) for choice in signed_data["certificates"]]
    for certificate in certificates:
        issuers = [c for c in certificates if c.subject == certificate.issuer]
        for issuer in issuers:
            try:
                certificate.verify_directly_issued_by(issuer)
            except Exception:  # the library raises what the algorithm raises
                yield f"a certificate that came with it was altered: {certificate.subject.rfc4514_string()}"


def _time_stamps(signature: EmbeddedPdfSignature) -> Iterator[Any]:
    from pyhanko.sign.validation.generic_cms import extract_tst_data_iter

    yield from extract_tst_data_iter(signature.signer_info, signed=False)


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
