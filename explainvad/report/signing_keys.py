"""The keys that sign: in a PKCS#12 file, or on a token that never gives its key away (PKCS#11)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainvad.errors import UsageError

if TYPE_CHECKING:
    from pyhanko.sign.signers import Signer

_FITTING = {"digital_signature", "non_repudiation"}  # key usages, one of which a certificate must allow


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A PKCS#12 file (.p12, .pfx) and the passphrase that opens it."""

    path: Path
    passphrase: str = field(repr=False)

    @contextmanager
    def open(self) -> Iterator[Signer]:
        """Give the signer. Raises UsageError when the file or its passphrase is not the right one."""
        from cryptography.hazmat.primitives.serialization import pkcs12
        from pyhanko.sign.signers import SimpleSigner

        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UsageError(f"the key {self.path} cannot be read: {error.strerror or error}") from error
        if not data.startswith(b"\x30"):
            raise UsageError(f"{self.path} is no PKCS#12 file: expected a .p12 or .pfx with a key and its certificate")
        secret = self.passphrase.encode()
        try:
            found = pkcs12.load_pkcs12(data, secret)
        except ValueError as error:
            raise UsageError(
                f"{self.path} cannot be opened: the passphrase is wrong, or it is no PKCS#12 file"
            ) from error
        if found.key is None or found.cert is None:
            raise UsageError(f"{self.path} holds no private key with its certificate; export both into one file")
        yield SimpleSigner.load_pkcs12_data(data, other_certs=[], passphrase=secret)


@dataclass(frozen=True, slots=True)
class KeyToken:
    """A key on a PKCS#11 token: the library that reaches it, the token's label, its PIN, and the key's label."""

    library: Path
    token: str
    pin: str = field(repr=False)
    key_label: str | None = None

    @contextmanager
    def open(self) -> Iterator[Signer]:
        """Give the signer while the token's session lasts. Raises UsageError that says what the token lacks."""
        import pkcs11
        from pyhanko.config.pkcs11 import TokenCriteria
        from pyhanko.sign.pkcs11 import PKCS11Signer, open_pkcs11_session

        if not self.library.is_file():
            raise UsageError(f"there is no PKCS#11 library {self.library}: name the one that came with the token")
        try:
            session = open_pkcs11_session(
                str(self.library), token_criteria=TokenCriteria(label=self.token), user_pin=self.pin
            )
        except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange) as error:
            raise UsageError(
                f"the token {self.token!r} refuses this PIN; some tokens lock after a few tries"
            ) from error
        except (pkcs11.PKCS11Error, RuntimeError) as error:
            raise UsageError(f"the token {self.token!r} cannot be opened: {_words(error)}") from error
        with session:
            key_id = self._key_id(session)
            yield PKCS11Signer(session, key_id=key_id, cert_id=key_id, other_certs_to_pull=None)

    def _key_id(self, session: Any) -> bytes:
        """Return the id that the key shares with its certificate."""
        from pkcs11 import Attribute, ObjectClass

        wanted: dict[Any, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.SIGN: True}
        if self.key_label is not None:
            wanted[Attribute.LABEL] = self.key_label
        keys = list(session.get_objects(wanted))
        if len(keys) != 1:
            which = "" if self.key_label is None else f" with the label {self.key_label!r}"
            remedy = "name one with --key-label" if keys else "look for its label with the token's own tools"
            raise UsageError(f"expected one signing key{which} on {self.token!r}, found {len(keys)}; {remedy}")
        key_id = bytes(keys[0][Attribute.ID])
        if not list(session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.ID: key_id})):
            raise UsageError(f"the token {self.token!r} holds no certificate with the id of its key: {key_id.hex()}")
        return key_id


def check_certificate(certificate: Any, when: datetime) -> None:
    """Raise UsageError unless the certificate is valid at ``when`` and made for signing."""
    subject = certificate.subject.human_friendly
    validity = certificate["tbs_certificate"]["validity"]
    start, end = validity["not_before"].native, validity["not_after"].native
    if not start <= when <= end:
        raise UsageError(
            f"the certificate of {subject} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}, not on {when:%Y-%m-%d}; "
            "sign with one that is"
        )
    usage = certificate.key_usage_value
    if usage is not None and not usage.native & _FITTING:
        allowed = ", ".join(sorted(usage.native)).replace("_", " ") or "nothing"
        raise UsageError(
            f"the certificate of {subject} is made for {allowed}; signing needs digital signature or non repudiation"
        )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
