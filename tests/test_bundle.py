"""A bundle is whole or refused, and the refusal names the file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from explainvad.bundle import SCHEMA, read_bundle, write_bundle
from explainvad.errors import IntegrityError, ModelNotFoundError, StorageError, UsageError

CONTENTS = {"config": {"alpha": 0.05}, "names": ["größe", "b"], "third": 1 / 3}
TENSORS: dict[str, dict[str, NDArray[Any]]] = {
    "network": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 4), dtype=np.float32)},
    "bank": {"rows": np.array([[1, 2]], dtype=np.int32)},
}
FILES = {"references/ref-001.jpg": b"\xff\xd8 one", "references/ref-002.jpg": b"", "note.txt": b"text"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.evad"
    write_bundle(path, CONTENTS, TENSORS, FILES)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def list_file(path: Path, name: str, content: bytes) -> None:
    """Let the manifest list ``name`` with the right hash of ``content``."""
    manifest = json.loads((path / "manifest.json").read_text())
    edit_manifest(path, files={**manifest["files"], name: hashlib.sha256(content).hexdigest()})


# --- Whole


def test_a_bundle_comes_back_as_it_was_written(model: Path) -> None:
    bundle = read_bundle(model)
    assert bundle.contents == CONTENTS
    assert dict(bundle.files) == FILES
    assert set(bundle.tensors) == set(TENSORS)
    for component, tensors in TENSORS.items():
        assert set(bundle.tensors[component]) == set(tensors)
        for name, array in tensors.items():
            loaded = bundle.tensors[component][name]
            assert loaded.dtype == array.dtype
            assert np.array_equal(loaded, array)


def test_an_array_comes_back_whatever_its_layout_in_memory(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    write_bundle(tmp_path / "model.evad", CONTENTS, {"network": {"w": array}}, {})
    assert np.array_equal(read_bundle(tmp_path / "model.evad").tensors["network"]["w"], array)


def test_the_model_id_is_the_hash_of_the_manifest_and_names_every_byte(model: Path, tmp_path: Path) -> None:
    assert read_bundle(model).model_id == hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()
    same = write_bundle(tmp_path / "same.evad", CONTENTS, TENSORS, FILES)
    assert same == read_bundle(model).model_id
    assert everything(tmp_path / "same.evad") == everything(model)
    others = [
        write_bundle(tmp_path / "other.evad", {**CONTENTS, "third": 0.3}, TENSORS, FILES),
        write_bundle(tmp_path / "other.evad", CONTENTS, {"bank": TENSORS["bank"]}, FILES),
        write_bundle(tmp_path / "other.evad", CONTENTS, TENSORS, {**FILES, "note.txt": b"Text"}),
    ]
    assert len({same, *others}) == 4


def test_there_is_no_pickle_anywhere(model: Path) -> None:
    assert {p.suffix for p in model.rglob("*") if p.is_file()} == {".json", ".safetensors", ".jpg", ".txt"}
    for content in everything(model).values():
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"))
    for source in (Path(__file__).parents[1] / "explainvad").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        if source.parts[-2:] == ("training", "loop.py"):  # resumes from a checkpoint of its own, tensors alone
            text = re.sub(r"torch\.load\([^()]*, weights_only=True\)", "", text)
        if source.parts[-2:] == ("detection", "loading.py"):  # reads tensors alone out of pickles of others
            text = re.sub(r"torch\.load\([^()]*, weights_only=True\)", "", text)
            assert set(re.findall(r"pickle\.\w+", text)) == {"pickle.UnpicklingError"}
            text = text.replace("import pickle", "")
        assert not any(word in text for word in ("import pickle", "torch.load", "joblib", "allow_pickle=True")), source


def test_what_the_manifest_does_not_list_is_not_read(model: Path) -> None:
    (model / "extra.safetensors").write_bytes(b"no tensors at all")
    (model / "references" / "ref-999.jpg").write_bytes(b"smuggled")
    bundle = read_bundle(model)
    assert dict(bundle.files) == FILES
    assert set(bundle.tensors) == set(TENSORS)


# --- Altered


LISTED = ("network.safetensors", "bank.safetensors", *FILES)


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("change", ["altered", "longer", "missing", "folder", "link"])
def test_a_file_that_is_not_what_was_written_is_found_by_name(model: Path, name: str, change: str) -> None:
    path = model / name
    content = path.read_bytes()
    if change == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if content else b"x")
    elif change == "longer":
        path.write_bytes(content + b"\0")
    else:
        path.unlink()
    if change == "folder":
        path.mkdir()
    if change == "link":
        outside = model.parent / "outside"
        outside.write_bytes(content)
        path.symlink_to(outside)
    said = {"altered": "was altered", "longer": "was altered", "link": "lies outside"}.get(change, "is missing")
    with pytest.raises(IntegrityError, match=rf"{name}.*{said}") as caught:
        read_bundle(model)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["../secret", "references/../../secret", "/etc/hostname", "", ".", "..", "a\0b"])
def test_a_listed_name_that_leads_out_is_refused_before_it_is_read(model: Path, name: str) -> None:
    secret = model.parent / "secret"
    secret.write_bytes(b"secret")
    list_file(model, name, b"secret")
    with pytest.raises(IntegrityError, match="lies outside the bundle: do not use it"):
        read_bundle(model)


def test_an_absolute_name_is_refused(model: Path) -> None:
    secret = model.parent / "secret"
    secret.write_bytes(b"secret")
    list_file(model, str(secret), b"secret")
    with pytest.raises(IntegrityError, match=r"secret', which lies outside the bundle"):
        read_bundle(model)


def test_links_do_not_lead_out_of_a_bundle(model: Path) -> None:
    outside = model.parent / "outside"
    shutil.move(model / "references", outside)
    (model / "references").symlink_to(outside)
    with pytest.raises(IntegrityError, match=r"references/ref-001\.jpg', which lies outside"):
        read_bundle(model)
    (model / "references").unlink()
    (model / "references").symlink_to(model / "references")  # in a circle
    with pytest.raises(IntegrityError, match=r"references/ref-001\.jpg"):
        read_bundle(model)


def test_a_bundle_may_itself_be_reached_by_a_link(model: Path) -> None:
    link = model.parent / "current.evad"
    link.symlink_to(model)
    assert dict(read_bundle(link).files) == FILES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        '{"schema": 1}',
        '{"schema": 1, "files": {}}',
        '{"schema": 1, "files": 7, "contents": {}}',
        '{"schema": 1, "files": ["a.txt"], "contents": {}}',
        "[" * 100_000,
        b"\xff\xfe{}",
    ],
)
def test_a_damaged_manifest_is_named(model: Path, text: str | bytes) -> None:
    (model / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(IntegrityError, match=r"model\.evad/manifest\.json is damaged: fit the model again"):
        read_bundle(model)


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, "1", None])
def test_another_schema_is_refused(model: Path, schema: object) -> None:
    edit_manifest(model, schema=schema)
    with pytest.raises(IntegrityError, match=rf"has schema {schema}, this version reads {SCHEMA}"):
        read_bundle(model)


@pytest.mark.parametrize("digest", [None, 7, "", "0" * 64, ["x"]])
def test_a_digest_of_any_kind_must_be_the_right_one(model: Path, digest: object) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    edit_manifest(model, files={**manifest["files"], "note.txt": digest})
    with pytest.raises(IntegrityError, match=r"note\.txt was altered"):
        read_bundle(model)


def header(text: str, size: int = 8) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + bytes(size)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        save(TENSORS["network"])[:-1],
        header("{"),
        header('{"w":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,8]}}'),
        header('{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}}'),
        header('{"w":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}'),  # a type that numpy does not have
        (2**62).to_bytes(8, "little") + b"{}",
    ],
)
def test_damaged_tensors_with_the_right_hash_are_refused(model: Path, content: bytes) -> None:
    (model / "network.safetensors").write_bytes(content)
    list_file(model, "network.safetensors", content)
    with pytest.raises(IntegrityError, match="holds tensors that cannot be read"):
        read_bundle(model)


@pytest.mark.parametrize("make", ["nothing", "empty folder", "file"])
def test_no_bundle_says_how_to_make_one(tmp_path: Path, make: str) -> None:
    path = tmp_path / "none.evad"
    if make == "empty folder":
        path.mkdir()
    elif make == "file":
        path.write_text("x")
    with pytest.raises(ModelNotFoundError, match=r"explainvad fit REFERENCE --out none\.evad"):
        read_bundle(path)


# --- Writing


def test_an_older_bundle_is_replaced_whole(model: Path) -> None:
    write_bundle(model, {"new": 1}, {}, {"only.txt": b"1"})
    assert set(everything(model)) == {"manifest.json", "only.txt"}
    assert [p.name for p in model.parent.iterdir()] == ["model.evad"]  # no scratch left


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "photos.evad"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"1")
    (tmp_path / "file.evad").write_bytes(b"2")
    for path in (folder, tmp_path / "file.evad"):
        with pytest.raises(UsageError, match="exists and is no model bundle: choose another --out"):
            write_bundle(path, CONTENTS, TENSORS, FILES)
    assert everything(tmp_path) == {"photos.evad/a.jpg": b"1", "file.evad": b"2"}


def test_the_name_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"named \*\.evad, got model: use model\.evad"):
        write_bundle(tmp_path / "model", CONTENTS, TENSORS, FILES)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_does_not_have_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_bundle(tmp_path / "model.evad", {"x": float("nan")}, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_folders_above_are_made(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a" / "b" / "model.evad", CONTENTS, {}, {})
    assert read_bundle(tmp_path / "a" / "b" / "model.evad").contents == CONTENTS


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", range(9))
def test_an_interrupted_write_leaves_the_old_bundle(
    model: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException
) -> None:
    before = everything(model)
    steps = 0

    def failing(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step + 1:
                raise error
            return real(*args, **kwargs)

        return call

    # 6 files are synced and 2 folders renamed; the last round finds nothing more to fail
    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    if step == 8:
        write_bundle(model, {"new": 1}, TENSORS, FILES)
        assert steps == 8
        assert read_bundle(model).contents == {"new": 1}
        return
    with pytest.raises((StorageError, KeyboardInterrupt)) as caught:
        write_bundle(model, {"new": 1}, TENSORS, FILES)
    if isinstance(error, OSError):
        assert str(caught.value).endswith("No space left on device")
    assert everything(model) == before
    assert [p.name for p in model.parent.iterdir()] == ["model.evad"]
