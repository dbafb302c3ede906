"""Signatures: what they leave as it was, what they prove, what they refuse, and what a crash leaves behind."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import page
import pikepdf
import pytest
from command_line import explainvad, ledger, tree
from own_authority import NOW, PASSPHRASE, Authority
from signed_runs import People, Signatory, signatory

from explainvad.errors import IntegrityError, SigningError, StorageError, UsageError
from explainvad.record import run as record_run
from explainvad.record.ledger import seal
from explainvad.record.pdf_signatures import read_certificates, read_signatures
from explainvad.record.storage import sha256_hex
from explainvad.record.verify import verify_run
from explainvad.record.verify_pdf import verify_pdf
from explainvad.report import pdf_signing
from explainvad.report.signing_keys import KeyFile, KeyToken
from explainvad.report.stamp import stamp_pdf
from explainvad.reporting import load_report
from explainvad.signing import Signed, sign

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
EARLIER_COVERS_LESS = {"PDFA3A-SIGNATURE-BYTERANGE-001"}  # the validator asks it of the first of two signatures too


@pytest.fixture
def unsigned(quiet_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(quiet_run, tmp_path / "run")


@pytest.fixture
def signed(signed_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(signed_run, tmp_path / "run")


@pytest.fixture(scope="session")
def drawn() -> bytes:
    return stamp_pdf("A. Nobody", NOW.isoformat(), "Inspection performed", None, (221, 32))


@pytest.fixture
def quick(drawn: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stamp for all, where none looks at it: to draw one takes two seconds."""
    monkeypatch.setattr(pdf_signing, "stamp_pdf", lambda *_: drawn)


def report_of(run_dir: Path) -> bytes:
    return (run_dir / "report.pdf").read_bytes()


def problems(target: Path, **options: Any) -> list[str]:
    check = verify_run if target.is_dir() else verify_pdf
    return [str(problem) for problem in check(target, **options).problems]


def sign_first(run_dir: Path, people: People, **changes: Any) -> Signed:
    options: dict[str, Any] = {"key": people.first.key, "name": people.first.name, "meaning": "performed"}
    return sign(run_dir, **options | changes)


def test_a_signature_is_appended_recorded_and_proved(quiet_run: Path, signed_run: Path, people: People) -> None:
    before, after = report_of(quiet_run), report_of(signed_run)
    assert after.startswith(before)
    (line,) = [line for line in ledger(signed_run) if line["event"] == "report_signed"]
    assert line["body"] == {
        "file": "report.pdf",
        "field": "performed",
        "name": people.first.name,
        "meaning": "Inspection performed",
        "reason": None,
        "time": line["body"]["time"],
        "subject": "Common Name: A. Nobody",
        "fingerprint": people.first.identity.fingerprint,
        "before": sha256_hex(before),
        "after": sha256_hex(after),
    }
    for target in (signed_run, signed_run / "report.pdf"):
        assert problems(target) == []
        told = "\n".join((verify_run if target.is_dir() else verify_pdf)(target).checked)
        assert f"by A. Nobody, {line['body']['time']}, no time stamp, “Inspection performed”" in told
        assert "covers the whole file; trust not checked: name the trusted certificates with --trust" in told
    assert not (signed_run / "report.pdf.signing").exists()


def test_a_second_signature_keeps_the_first_and_its_time_is_proved(
    signed_run: Path, twice_signed_run: Path, people: People
) -> None:
    assert report_of(twice_signed_run).startswith(report_of(signed_run))
    assert problems(twice_signed_run, trust=[people.root]) == []
    first, second = read_signatures(report_of(twice_signed_run), read_certificates([people.root]))
    assert (first.field, second.field, second.name) == ("performed", "reviewed", people.second.name)
    assert (first.stamped, second.stamped is not None) == (None, True)
    assert first.coverage == "covers all before the next signature that followed"
    assert second.reason == "Flagged images reviewed: All three were looked at"
    assert "leads to a trusted certificate" in first.trust and "leads to a trusted certificate" in second.trust


def test_only_named_roots_are_trusted(twice_signed_run: Path, tmp_path: Path) -> None:
    stranger = Authority("Test Root").pem(tmp_path / "stranger.pem")
    found = problems(twice_signed_run, trust=[stranger])
    assert len(found) == 3 and all("trusted" in problem for problem in found)
    with pytest.raises(UsageError, match="holds no certificate"):
        verify_run(twice_signed_run, trust=[twice_signed_run / "report.json"])


def test_signed_reports_stay_archival_and_accessible(quiet_run: Path, signed_run: Path, twice_signed_run: Path) -> None:
    for run_dir, excepted in ((signed_run, set()), (twice_signed_run, EARLIER_COVERS_LESS)):
        path = run_dir / "report.pdf"
        assert page.validate_pdf(path, profile="pdfua-1").is_compliant
        assert {failure.rule_id for failure in page.validate_pdf(path, profile="pdfa-3a").failures} == excepted
        checked = subprocess.run(["qpdf", "--check", path], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
    with pikepdf.open(quiet_run / "report.pdf") as bare, pikepdf.open(twice_signed_run / "report.pdf") as signed:
        assert bare.Root.Metadata.read_raw_bytes() == signed.Root.Metadata.read_raw_bytes()
        assert "/Version" not in signed.Root
        fonts = [font for field in signed.Root.AcroForm.Fields if "/V" in field for font in fonts_of(field.AP.N)]
        assert fonts and all("/FontFile2" in f or "/FontFile3" in f for f in fonts)


def fonts_of(form: pikepdf.Object) -> list[pikepdf.Object]:
    """The descriptors of all fonts that a form uses, those of forms within it included."""
    resources = form.Resources
    own = [font.DescendantFonts[0].FontDescriptor for font in resources.get("/Font", {}).values()]
    return own + [font for inner in resources.get("/XObject", {}).values() for font in fonts_of(inner)]


@pytest.mark.thorough
def test_every_altered_byte_of_a_signed_file_is_found(twice_signed_run: Path, tmp_path: Path) -> None:
    """With the file alone, no ledger beside it: most bytes are signed, and the last signature's are read strictly."""
    whole, rng = report_of(twice_signed_run), random.Random(16)
    gap = whole.rindex(b"/Contents <") + len(b"/Contents ")
    own = range(gap, whole.index(b">", gap) + 1)
    path = tmp_path / "report.pdf"
    for place in [*rng.sample(range(len(whole)), 40), *rng.sample(own, 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert problems(path), place


def test_a_signed_file_that_was_cut_off_is_found(
    quiet_run: Path, signed_run: Path, twice_signed_run: Path, tmp_path: Path
) -> None:
    """Alone; cut exactly where a signature began, it is the report as it was before that, and sound."""
    states = [report_of(run) for run in (quiet_run, signed_run, twice_signed_run)]
    whole, path, rng = states[-1], tmp_path / "report.pdf", random.Random(17)
    for before, after in pairwise(map(len, states)):
        update = before + len(whole[before:after]) - len(whole[before:after].lstrip(b"\r\n"))
        for length in [update + 1, *rng.sample(range(update + 1, after - 1), 8), after - 1]:
            path.write_bytes(whole[:length])
            assert problems(path), length


@pytest.mark.parametrize(
    "changed", [{"meaning": "Report approved"}, {"reason": "as agreed"}, {"subject": "B. Someone"}]
)
def test_the_ledger_cannot_tell_of_another_statement_than_was_signed(signed: Path, changed: dict[str, str]) -> None:
    *before, last = (signed / "ledger.jsonl").read_bytes().splitlines()
    line = json.loads(last)
    forged = seal(line["seq"], line["prev"], line["time"], line["event"], line["body"] | changed)
    (signed / "ledger.jsonl").write_bytes(b"\n".join([*before, forged, b""]))
    (problem,) = problems(signed)
    assert "its signature in the field performed is not the recorded one" in problem
    assert next(iter(changed.values())) in problem


@pytest.mark.usefixtures("quick")
def test_what_is_added_behind_a_signature_is_found(signed: Path, people: People, tmp_path: Path) -> None:
    from pyhanko.pdf_utils.generic import TextStringObject
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

    writer = IncrementalPdfFileWriter(BytesIO(report_of(signed)))
    writer._update_meta = lambda: None
    writer.root["/Lang"] = TextStringObject("xx")
    writer.update_root()
    changed = BytesIO()
    writer.write(changed)
    path = tmp_path / "report.pdf"
    path.write_bytes(changed.getvalue())
    assert problems(path) == ["report.pdf, signature performed: bytes were added behind the last signature"]

    # A signature on top does not make it right
    with people.second.key.open() as signer:
        statement = pdf_signing.Statement("B", "Report approved", None, NOW.isoformat())
        path.write_bytes(pdf_signing.sign_pdf(changed.getvalue(), "approved", statement, signer))
    (problem,) = problems(path)
    assert problem.startswith(
        "report.pdf, signature performed: more than further signatures was changed afterwards: /Lang"
    )
    path.write_bytes(report_of(signed) + b"\n")
    assert problems(path)


def test_a_signed_report_that_was_replaced_or_altered_is_named(quiet_run: Path, signed: Path) -> None:
    content = report_of(signed)
    shutil.copy(quiet_run / "report.pdf", signed / "report.pdf")
    assert problems(signed)[0].startswith("report.pdf: replaced by the file as it was before it was signed")
    assert any("signature in the field performed is not the recorded one" in problem for problem in problems(signed))
    (signed / "report.pdf").write_bytes(content[:9000] + bytes([content[9000] ^ 1]) + content[9001:])
    assert problems(signed)[0].startswith("report.pdf: altered after it was signed")


def bad_keys(people: People, folder: Path) -> dict[str, tuple[KeyFile, str]]:
    issue = people.authority.issue
    late, early = NOW - timedelta(days=1), NOW + timedelta(days=1)
    (folder / "none.p12").write_text("-----BEGIN")
    (folder / "torn.p12").write_bytes(people.first.key.path.read_bytes()[:500])
    return {
        "passphrase": (KeyFile(people.first.key.path, "wrong"), "passphrase is wrong"),
        "no file": (KeyFile(folder / "absent.p12", PASSPHRASE), "cannot be read"),
        "no p12": (KeyFile(folder / "none.p12", PASSPHRASE), "is no PKCS#12 file"),
        "torn": (KeyFile(folder / "torn.p12", PASSPHRASE), "cannot be opened"),
        "expired": (KeyFile(issue("A", end=late).p12(folder / "late.p12"), PASSPHRASE), "is valid from"),
        "not yet": (KeyFile(issue("A", start=early).p12(folder / "early.p12"), PASSPHRASE), "is valid from"),
        "usage": (
            KeyFile(issue("A", usage=("key_encipherment",)).p12(folder / "use.p12"), PASSPHRASE),
            "is made for key encipherment; signing needs",
        ),
    }


def test_keys_that_do_not_serve_are_refused_and_nothing_changes(unsigned: Path, people: People, tmp_path: Path) -> None:
    before = tree(unsigned)
    for case, (key, message) in bad_keys(people, tmp_path).items():
        with pytest.raises(UsageError, match=message):
            sign_first(unsigned, people, key=key)
        assert tree(unsigned) == before, case
    assert PASSPHRASE not in repr(people.first.key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "--name expects"),
        ({"name": "A\nB"}, "--name expects"),
        ({"reason": "x" * 121}, "--reason expects"),
        ({"meaning": "aproved"}, "--meaning expects performed, reviewed, approved"),
        ({"meaning": "other"}, "--meaning expects performed, reviewed, approved"),
        ({"timestamp_url": "file:///etc/passwd"}, "starts with https"),
        ({}, "is signed already as “Inspection performed”"),
    ],
)
def test_texts_and_fields_that_do_not_serve_are_refused(
    signed: Path, people: People, changes: dict[str, Any], message: str
) -> None:
    before = tree(signed)
    with pytest.raises(UsageError, match=message):
        sign_first(signed, people, **changes)
    assert tree(signed) == before


def test_only_what_verifies_is_signed(unsigned: Path, quiet_run: Path, people: People, tmp_path: Path) -> None:
    (unsigned / "results.csv").write_text("other\n")
    with pytest.raises(IntegrityError, match=r"only what verifies is signed\. results\.csv: altered"):
        sign_first(unsigned, people)
    assert report_of(unsigned) == report_of(quiet_run)
    alone = tmp_path / "alone.pdf"
    alone.write_bytes(report_of(quiet_run)[:-3000])
    with pytest.raises(IntegrityError, match="only what verifies is signed"):
        sign(alone, people.first.key, name="A", meaning="approved")


@pytest.mark.usefixtures("quick")
def test_a_report_without_its_run_is_signed_in_place(quiet_run: Path, people: People, tmp_path: Path) -> None:
    alone = Path(shutil.copy(quiet_run / "report.pdf", tmp_path / "copy.pdf"))
    done = sign(alone, people.second.key, name="B", meaning="Released for dispatch", reason="As agreed")
    assert (done.path, done.signing.field) == (alone, "other")
    assert alone.read_bytes().startswith(report_of(quiet_run))
    assert problems(alone, trust=[people.root]) == []
    assert list(tmp_path.iterdir()) == [alone]


@pytest.mark.usefixtures("quick")
def test_without_an_answer_from_the_time_stamp_server_nothing_is_signed(unsigned: Path, people: People) -> None:
    before = tree(unsigned)
    with pytest.raises(SigningError, match=r"no time stamp from http://127\.0\.0\.1:9/"):
        sign_first(unsigned, people, timestamp_url="http://127.0.0.1:9/")
    assert tree(unsigned) == before


def test_a_signed_report_is_never_rendered_over(signed: Path, tmp_path: Path) -> None:
    before = tree(signed)
    done = explainvad("render", signed)
    assert done.code == 2
    assert "is signed, by A. Nobody, and a signed report is never overwritten" in done.err and "--out" in done.err
    (signed / "report.pdf").unlink()
    assert explainvad("render", signed, "--formats", "pdf").code == 2
    (signed / "report.pdf").write_bytes(before["report.pdf"])
    assert explainvad("render", signed, "--formats", "csv,json").code == 0
    assert explainvad("render", signed, "--formats", "json", "--out", tmp_path / "other").code == 0
    assert (tmp_path / "other" / "report.json").read_bytes() == before["report.json"]
    assert tree(signed) == before


def test_a_signed_report_elsewhere_is_not_rendered_over_either(signed: Path, quiet_run: Path) -> None:
    with pytest.raises(UsageError, match="is signed"):
        load_report(quiet_run).render(signed, ["pdf"])


def failing(at: int, calls: list[int], step: Callable[..., Any]) -> Callable[..., Any]:
    """``step``, the call number ``at`` of all steps ending in a full disk."""

    def stepped(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise StorageError("no space left")
        return step(*arguments, **options)

    return stepped


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("signing", [True, False])
def test_a_torn_line_is_dropped_only_where_a_signing_was_to_write_it(
    unsigned: Path, people: People, monkeypatch: pytest.MonkeyPatch, signing: bool
) -> None:
    if signing:
        with monkeypatch.context() as patch, pytest.raises(StorageError):
            patch.setattr(record_run.Run, "_append", failing(1, [], record_run.Run._append))
            sign_first(unsigned, people)
    with (unsigned / "ledger.jsonl").open("ab") as ledger_file:
        ledger_file.write(b'{"body":{"after":"0123')
    before = tree(unsigned)
    if signing:
        sign_first(unsigned, people)
        assert problems(unsigned) == []
        assert [line["event"] for line in ledger(unsigned)].count("report_signed") == 1
    else:
        with pytest.raises(IntegrityError, match="torn"):
            sign_first(unsigned, people)
        assert tree(unsigned) == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_signing_that_is_cut_short_is_explained_and_finished_by_the_same_command(
    unsigned: Path, people: People, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The steps: the file written aside, its name made durable, the ledger line, the report's place taken."""
    before = report_of(unsigned)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        for owner, name in (
            (record_run, "write_below"),
            (record_run, "sync_folder"),
            (record_run.Run, "_append"),
            (record_run.Run, "_put_in_place"),
        ):
            patch.setattr(owner, name, failing(at, calls, getattr(owner, name)))
        with pytest.raises(StorageError):
            sign_first(unsigned, people)
    assert report_of(unsigned) == before
    left = problems(unsigned)
    if at == 1:
        assert left == []
    elif at < 4:
        assert left == [
            "report.pdf.signing: left by a signing that ended before it was recorded: sign again, or delete it"
        ]
    else:
        assert left[0].startswith("report.pdf: signed by A. Nobody, but the signed file is not in place yet")
    sign_first(unsigned, people)
    assert problems(unsigned) == []
    assert sum(line["event"] == "report_signed" for line in ledger(unsigned)) == 1
    assert not (unsigned / "report.pdf.signing").exists()


@pytest.fixture
def token(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[KeyToken, Signatory]:
    """A software token that holds the key of a third person."""
    if not SOFTHSM.is_file():
        pytest.skip(f"{SOFTHSM} is not installed")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "desk", "--so-pin", "1234", "--pin", "5678"],
        check=True,
        capture_output=True,
    )
    third = signatory(people.authority, tmp_path, "C. Token", "rsa")
    fill_token(third)
    return KeyToken(SOFTHSM, "desk", "5678", "signing key"), third


def fill_token(person: Signatory) -> None:
    import pkcs11
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from pkcs11.util.rsa import decode_rsa_private_key
    from pkcs11.util.x509 import decode_x509_certificate

    library = pkcs11.lib(str(SOFTHSM))
    library.reinitialize()
    common = {pkcs11.Attribute.TOKEN: True, pkcs11.Attribute.ID: b"\x07", pkcs11.Attribute.LABEL: "signing key"}
    der = person.identity.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    certificate = decode_x509_certificate(person.identity.certificate.public_bytes(Encoding.DER))
    with library.get_token(token_label="desk").open(rw=True, user_pin="5678") as session:
        session.create_object(decode_rsa_private_key(der) | common)
        session.create_object(certificate | common | {pkcs11.Attribute.LABEL: "another label"})


@pytest.mark.usefixtures("quick")
def test_a_token_signs_without_giving_its_key(
    unsigned: Path, people: People, token: tuple[KeyToken, Signatory]
) -> None:
    key, third = token
    before = tree(unsigned)
    for wrong, message in (
        (KeyToken(SOFTHSM, "desk", "0000"), "refuses this PIN"),
        (KeyToken(SOFTHSM, "drawer", "5678"), "cannot be opened"),
        (KeyToken(SOFTHSM, "desk", "5678", "no such key"), "expected one signing key with the label 'no such key'"),
        (KeyToken(Path("/no/lib.so"), "desk", "5678"), "no PKCS#11 library"),
    ):
        with pytest.raises(UsageError, match=message):
            sign_first(unsigned, people, key=wrong)
    assert tree(unsigned) == before
    done = sign_first(unsigned, people, key=key)
    assert done.signing.fingerprint == third.identity.fingerprint
    assert problems(unsigned) == []


@pytest.mark.usefixtures("quick")
def test_the_command_takes_the_passphrase_from_file_environment_or_prompt_only(
    unsigned: Path, people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ("--key", people.first.key.path, "--name", "A. Nobody", "--meaning")
    (tmp_path / "secret").write_text(f"{PASSPHRASE}\n")
    done = explainvad("sign", unsigned, *texts, "performed", "--passphrase-file", tmp_path / "secret")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"signed  {unsigned / 'report.pdf'}: Inspection performed, by A. Nobody, ")
    monkeypatch.setenv("EXPLAINVAD_KEY_PASSPHRASE", PASSPHRASE)
    assert explainvad("sign", unsigned / "report.pdf", *texts, "reviewed").code == 0
    monkeypatch.delenv("EXPLAINVAD_KEY_PASSPHRASE")
    asked: list[tuple[str, dict[str, Any]]] = []

    def prompt(text: str, **options: Any) -> str:
        asked.append((text, options))
        return PASSPHRASE

    monkeypatch.setattr("typer.prompt", prompt)
    assert explainvad("sign", unsigned, *texts, "approved").code == 0
    assert asked[0][0] == "Passphrase of the key" and asked[0][1]["hide_input"] is True
    assert [line["body"]["field"] for line in ledger(unsigned)[-3:]] == ["performed", "reviewed", "approved"]
    done = explainvad("verify", unsigned, "--trust", people.root)
    assert (done.code, done.err) == (0, "")
    assert explainvad("sign", unsigned, *texts[2:], "approved").code == 2
    assert explainvad("sign", unsigned, "--token", "x", *texts, "approved").code == 2
