"""A certificate authority of our own, made when the tests run: keys, certificates, and a time stamp server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PASSPHRASE = "seven drops of oil"
NOW = datetime.now(UTC).replace(microsecond=0)
SIGNING = ("digital_signature", "content_commitment")
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True)
class Identity:
    """A private key with its certificate and its issuer's."""

    key: Any
    certificate: x509.Certificate
    issuer: x509.Certificate

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def p12(self, path: Path, passphrase: str = PASSPHRASE) -> Path:
        """Write key, certificate and issuer."""
        encryption = BestAvailableEncryption(passphrase.encode())
        path.write_bytes(
            pkcs12.serialize_key_and_certificates(b"k", self.key, self.certificate, [self.issuer], encryption)
        )
        return path


class Authority:
    """Issues certificates; ``pem`` writes its root."""

    def __init__(self, name: str = "Test Root") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.root = self._certificate(self._name, self._key.public_key(), ("key_cert_sign", "crl_sign"), ca=True)

    def pem(self, path: Path) -> Path:
        path.write_bytes(self.root.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(
        self, name: str, *, usage: tuple[str, ...] | None = SIGNING, kind: str = "ec", **dates: datetime
    ) -> Identity:
        """A key (ec or rsa) with a certificate; ``dates`` may set start and end."""
        made: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
        return Identity(made, self._certificate(_named(name), made.public_key(), usage, **dates), self.root)

    def issue_stamper(self) -> Identity:
        """A certificate for time stamps only."""
        made = rsa.generate_private_key(65537, 2048)
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        return Identity(made, self._certificate(_named("Time"), made.public_key(), SIGNING, purpose=purpose), self.root)

    def _certificate(
        self,
        subject: x509.Name,
        public: Any,
        usage: tuple[str, ...] | None,
        *,
        ca: bool = False,
        start: datetime = NOW - timedelta(days=2),
        end: datetime = NOW + timedelta(days=365),
        purpose: x509.ExtensionType | None = None,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(self._name, subject, public, x509.random_serial_number(), start, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if usage is not None:
            allowed = {flag: flag in usage for flag in USAGES}
            builder = builder.add_extension(x509.KeyUsage(**allowed), critical=True)
        if purpose is not None:
            builder = builder.add_extension(purpose, critical=True)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@contextmanager
def time_stamp_server(stamper: Identity) -> Iterator[str]:
    """A time stamp server on the loopback interface, while the block lasts; gives its address."""
    from asn1crypto import keys, tsp
    from asn1crypto import x509 as asn1_x509
    from pyhanko.sign.timestamps.dummy_client import DummyTimeStamper

    der = serialization.Encoding.DER
    key = stamper.key.private_bytes(der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = asn1_x509.Certificate.load(stamper.certificate.public_bytes(der))
    answer = DummyTimeStamper(certificate, keys.PrivateKeyInfo.load(key)).request_tsa_response

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            body = answer(tsp.TimeStampReq.load(request)).dump()
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
