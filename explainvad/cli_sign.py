"""The command that signs a report. :mod:`explainvad.cli` takes it up beside its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explainvad.errors import UsageError

if TYPE_CHECKING:
    from explainvad.report.signing_keys import KeyFile, KeyToken

PASSPHRASE = "EXPLAINVAD_KEY_PASSPHRASE"  # noqa: S105 - the name of the variable


def sign_command(
    target: Annotated[Path, typer.Argument(help="Folder that analyze wrote, or a PDF report.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Printed name of the person who signs.", show_default=False)],
    meaning: Annotated[
        str,
        typer.Option(
            "--meaning", help="performed, reviewed, approved, or words of your own for another.", show_default=False
        ),
    ],
    key: Annotated[
        Path | None, typer.Option("--key", help="PKCS#12 file with key and certificate.", show_default=False)
    ] = None,
    pkcs11: Annotated[
        Path | None, typer.Option("--pkcs11", help="Library of the token that holds the key.", show_default=False)
    ] = None,
    token: Annotated[str | None, typer.Option("--token", help="Label of that token.", show_default=False)] = None,
    key_label: Annotated[
        str | None, typer.Option("--key-label", help="Label of the key, where the token has several.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Further words, printed with the meaning.")] = None,
    timestamp_url: Annotated[
        str | None,
        typer.Option("--timestamp-url", help="Server that proves the time (RFC 3161); the only network access."),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file", help=f"File whose first line is the passphrase or PIN; else {PASSPHRASE}, else asked."
        ),
    ] = None,
) -> None:
    """Sign the PDF report: a visible stamp on its cover, and a signature that any later change breaks."""
    from explainvad.signing import sign

    signed = sign(
        target,
        _key(key, pkcs11, token, key_label, passphrase_file),
        name=name,
        meaning=meaning,
        reason=reason,
        timestamp_url=timestamp_url,
    )
    typer.echo(f"signed  {signed.path}: {signed.signing.meaning}, by {signed.signing.name}, {signed.signing.time}")
    typer.echo(f"        {signed.signing.subject}, certificate sha256 {signed.signing.fingerprint}")


def _key(
    key: Path | None, pkcs11: Path | None, token: str | None, key_label: str | None, passphrase_file: Path | None
) -> KeyFile | KeyToken:
    """Bring the options together, and ask for the secret last."""
    from explainvad.report.signing_keys import KeyFile, KeyToken

    if (key is None) == (pkcs11 is None):
        raise UsageError("give the key either as --key FILE.p12, or as --pkcs11 LIBRARY with --token LABEL")
    if (pkcs11 is None) != (token is None) or (pkcs11 is None and key_label is not None):
        raise UsageError("--pkcs11 and --token belong together, and --key-label to both")
    if key is not None:
        return KeyFile(key, _secret("Passphrase of the key", passphrase_file))
    assert pkcs11 is not None and token is not None
    return KeyToken(pkcs11, token, _secret(f"PIN of the token {token}", passphrase_file), key_label)


def _secret(prompt: str, file: Path | None) -> str:
    """Read a secret from a file, the environment or the terminal; never from the command line, which others can see."""
    if file is not None:
        try:
            return (file.read_text("utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the passphrase file {file} cannot be read: {error}") from error
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    return str(typer.prompt(prompt, hide_input=True, default="", show_default=False, err=True))
