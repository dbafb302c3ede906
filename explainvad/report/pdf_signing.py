"""Signs a report: an incremental update that fills one signature field and leaves all earlier bytes as they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainvad.errors import SigningError
from explainvad.report.scratch import scratch_folder
from explainvad.report.signature_fields import field_size
from explainvad.report.stamp import stamp_pdf

if TYPE_CHECKING:
    from pyhanko.sign.signers import Signer


@dataclass(frozen=True, slots=True)
class Statement:
    """What a person signs: printed name, meaning and reason, and when (ISO 8601, UTC)."""

    name: str
    meaning: str
    reason: str | None
    time: str


def sign_pdf(
    content: bytes, field: str, statement: Statement, signer: Signer, timestamp_url: str | None = None
) -> bytes:
    """Return ``content`` with a PAdES signature in the empty ``field``, B-T with a time stamp and B-B without.

    The network is used for the time stamp only. Raises SigningError when a time stamp cannot be had or the key does
    not sign, RenderError when the stamp cannot be drawn, StorageError when there is no room for temporary files.
    """
    size = field_size(content, field)
    stamp = stamp_pdf(statement.name, statement.time, statement.meaning, statement.reason, size)
    with scratch_folder() as folder:
        drawn = folder / "stamp.pdf"
        drawn.write_bytes(stamp)
        # In a thread: pyHanko starts an event loop, and the caller may be running one
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_signed, content, field, statement, signer, timestamp_url, drawn).result()


def _signed(
    content: bytes, field: str, statement: Statement, signer: Signer, timestamp_url: str | None, stamp: Path
) -> bytes:
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.pdf_utils.layout import AxisAlignment, SimpleBoxLayoutRule
    from pyhanko.sign.fields import SigSeedSubFilter
    from pyhanko.sign.signers import PdfSignatureMetadata, PdfSigner
    from pyhanko.sign.signers.constants import ESIC_EXTENSION_1
    from pyhanko.stamp import StaticStampStyle

    from explainvad.report.time_stamps import TimeStampServer

    class Writer(IncrementalPdfFileWriter):
        """Leaves the metadata as it is: writing it anew would lose the schemas that PDF/A asks for."""

        def _update_meta(self) -> None:
            pass

    class ReportSigner(PdfSigner):
        """States the time that the stamp shows, and leaves the file at PDF 1.7, which PDF/A-3 and PDF/UA-1 are."""

        def register_extensions(self, pdf_out: Any, *, md_algorithm: str) -> None:
            pdf_out.register_extension(ESIC_EXTENSION_1)

        def init_signing_session(self, *arguments: Any, **options: Any) -> Any:
            session = super().init_signing_session(*arguments, **options)
            session.system_time = datetime.fromisoformat(statement.time)
            return session

    _bind_all_certificates(signer)
    said = statement.meaning if statement.reason is None else f"{statement.meaning}: {statement.reason}"
    whole = SimpleBoxLayoutRule(AxisAlignment.ALIGN_MIN, AxisAlignment.ALIGN_MIN)
    pdf_signer = ReportSigner(
        PdfSignatureMetadata(
            field_name=field,
            name=statement.name,
            reason=said,
            subfilter=SigSeedSubFilter.PADES,
            md_algorithm="sha256",
        ),
        signer=signer,
        timestamper=TimeStampServer(timestamp_url) if timestamp_url is not None else None,
        stamp_style=StaticStampStyle.from_pdf_file(str(stamp), border_width=0, background_layout=whole),
    )
    signed = BytesIO()
    try:
        pdf_signer.sign_pdf(Writer(BytesIO(content)), existing_fields_only=True, output=signed)
    except Exception as error:  # of the token's library, the network or a time stamp that is none
        raise SigningError(_failure(error, timestamp_url)) from error
    return signed.getvalue()


def _bind_all_certificates(signer: Signer) -> None:
    """Have the signature list every certificate that goes with it, not only the signer's: none can be altered then."""
    from asn1crypto.tsp import SigningCertificateV2
    from pyhanko.sign.attributes import CMSAttributeProvider, SignedAttributeProviderSpec
    from pyhanko.sign.general import as_signing_certificate_v2

    class Listed(CMSAttributeProvider):
        attribute_type = "signing_certificate_v2"

        async def build_attr_value(self, dry_run: bool = False) -> SigningCertificateV2:
            own = signer.signing_cert
            others = [certificate for certificate in signer.cert_registry if certificate != own]
            entries = [as_signing_certificate_v2(certificate)["certs"][0] for certificate in (own, *others)]
            return SigningCertificateV2({"certs": entries})

    class Attributes(SignedAttributeProviderSpec):
        def signed_attr_providers(self, data_digest: bytes, digest_algorithm: str) -> list[CMSAttributeProvider]:
            return [Listed()]

    signer.signed_attr_prov_spec = Attributes()


def _failure(error: Exception, timestamp_url: str | None) -> str:
    words = str(error) or type(error).__name__
    if timestamp_url is not None and isinstance(error, OSError):
        return f"no time stamp from {timestamp_url}: {words}. Nothing was signed; try again, or without --timestamp-url"
    return f"the report could not be signed: {words}. Nothing was changed"
