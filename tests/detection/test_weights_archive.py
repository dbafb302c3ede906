"""Archives carry locked weights to machines without a network, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import tree
from tiny_models import CLIP, CNN, VIT, write_weights

from explainvad.detection import weights_archive
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_archive import export_weights, import_weights
from explainvad.detection.weights_install import bring
from explainvad.detection.weights_lock import LOCK, Lock, read_lock
from explainvad.errors import IntegrityError, StorageError, WeightsError

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def source(weight_store: Path) -> WeightStore:
    """The store to export from. Tests must not change it."""
    return WeightStore(weight_store)


@pytest.fixture
def archive(source: WeightStore, tmp_path: Path) -> Path:
    """One small model."""
    export_weights(source, [VIT], tmp_path / "weights.tar")
    return tmp_path / "weights.tar"


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    """The store to import into, not there yet."""
    return WeightStore(tmp_path / "store")


def members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(m, stream.read() if (stream := tar.extractfile(m)) else b"") for m in tar]


def rewrite(path: Path, content: Members, format: int = tarfile.USTAR_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as tar:
        for member, data in content:
            tar.addfile(member, io.BytesIO(data))


class TestRoundTrip:
    """What is exported here is what is imported there."""

    def test_weights_and_lock_arrive(self, source: WeightStore, store: WeightStore, tmp_path: Path) -> None:
        export_weights(source, [VIT, CLIP], tmp_path / "two.tar")
        taken = import_weights(store, tmp_path / "two.tar")
        assert sorted(taken) == [CLIP, VIT]
        assert sorted(p.name for p in store.root.iterdir()) == [CLIP, VIT, LOCK]
        for name, locked in taken.items():
            assert tree(store.root / name) == tree(source.root / name)
            assert locked.files == read_lock(source.root).weights[name].files
            assert locked.origin == "archive"
        assert read_lock(store.root).weights == taken
        assert store.weights(CLIP).clip() and store.weights(VIT).network()

    def test_where_they_came_from_is_kept(self, source: WeightStore, store: WeightStore, archive: Path) -> None:
        (lock, data), *rest = members(archive)
        entry = (
            read_lock(source.root)
            .weights[VIT]
            .model_copy(update={"origin": "hub", "hub": "acme/vit", "revision": "c" * 40, "licence": "MIT"})
        )
        data = Lock(weights={VIT: entry}).dump()
        lock.size = len(data)
        rewrite(archive, [(lock, data), *rest])
        import_weights(store, archive)
        line = f"acme/vit at {'c' * 12}, sha256 {entry.sha256[:16]}…, MIT"
        assert store.weights(VIT).describe() == line

    def test_the_same_weights_make_the_same_bytes(self, source: WeightStore, tmp_path: Path) -> None:
        for file, names in (("a.tar", [VIT, CNN]), ("b.tar", [CNN, VIT, CNN])):
            export_weights(source, names, tmp_path / file)
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
        found = [m.name for m, _ in members(tmp_path / "a.tar")]
        assert found == [LOCK] + [f"{n}/{f}" for n in sorted([CNN, VIT]) for f in ("config.json", "model.safetensors")]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.type) for m, _ in members(tmp_path / "a.tar")} == {
            (0, 0, 0, "", 0o644, tarfile.REGTYPE)
        }

    def test_importing_twice_changes_nothing(self, store: WeightStore, archive: Path) -> None:
        import_weights(store, archive)
        before = tree(store.root)
        import_weights(store, archive)
        assert tree(store.root) == before


class TestExport:
    """Only what is locked and as locked goes out."""

    def test_what_is_not_locked_is_named(self, source: WeightStore, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="expected locked weights, mine, yours are not"):
            export_weights(source, [VIT, "mine", "yours"], tmp_path / "x.tar")
        assert not (tmp_path / "x.tar").exists()

    def test_what_was_altered_is_refused(self, store: WeightStore, archive: Path, tmp_path: Path) -> None:
        import_weights(store, archive)
        (store.root / VIT / "config.json").write_text("{}")
        with pytest.raises(IntegrityError, match=f"{VIT}/config.json: expected sha256"):
            export_weights(store, [VIT], tmp_path / "x.tar")
        assert not (tmp_path / "x.tar").exists()

    def test_a_full_disk_leaves_no_archive(
        self, source: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(tarfile.TarFile, "addfile", full)
        with pytest.raises(StorageError, match=r"could not be written to .*x\.tar: No space left"):
            export_weights(source, [VIT], tmp_path / "x.tar")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_too_long_for_the_format_is_said(
        self, source: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights_archive, "FILE_LIMIT", 1000)
        with pytest.raises(WeightsError, match=r"model\.safetensors has \d+ bytes, an archive takes fewer than 1000"):
            export_weights(source, [VIT], tmp_path / "x.tar")


def link(kind: bytes, name: str = f"{VIT}/config.json") -> tarfile.TarInfo:
    """A member that is no file."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def renamed(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    return member.replace(name=name, deep=True)


def typed(member: tarfile.TarInfo, kind: bytes) -> tarfile.TarInfo:
    member = member.replace(deep=True)
    member.type = kind
    return member


class TestHostileArchives:
    """Whatever an archive holds, nothing is written but the files of its lock, below the store, with their hashes."""

    @pytest.fixture(autouse=True)
    def _nothing_escapes(self, tmp_path: Path, store: WeightStore) -> Any:
        yield
        assert {p.name for p in tmp_path.iterdir()} <= {"store", "weights.tar"}
        assert not store.root.exists() or list(store.root.iterdir()) == []

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: [m[0], (renamed(m[1][0], "/config.json"), m[1][1]), m[2]],
            lambda m: [m[0], (renamed(m[1][0], f"{VIT}/../../config.json"), m[1][1]), m[2]],
            lambda m: [m[0], (renamed(m[1][0], "other/config.json"), m[1][1]), m[2]],
            lambda m: [m[0], (renamed(m[1][0], f"{VIT}/setup.py"), m[1][1]), m[2]],
            lambda m: [m[0], (m[1][0].replace(deep=True), m[1][1]), (link(tarfile.LNKTYPE, m[2][0].name), b"")],
            lambda m: [m[0], (typed(m[1][0], tarfile.SYMTYPE), m[1][1]), m[2]],
            lambda m: [m[0], (typed(m[1][0], tarfile.GNUTYPE_SPARSE), m[1][1]), m[2]],
            lambda m: [m[0], (link(tarfile.SYMTYPE), b""), m[2]],
            lambda m: [m[0], (link(tarfile.LNKTYPE), b""), m[2]],
            lambda m: [m[0], (link(tarfile.CHRTYPE), b""), m[2]],
            lambda m: [m[0], (link(tarfile.FIFOTYPE), b""), m[2]],
            lambda m: [m[0], (link(tarfile.DIRTYPE), b""), m[1], m[2]],
            lambda m: [(link(tarfile.SYMTYPE, VIT), b""), *m],
            lambda m: [m[0], m[2], m[1]],
            lambda m: [m[1], m[0], m[2]],
            lambda m: m[1:],
            lambda m: m[:2],
            lambda m: m[:1],
            lambda m: [m[0], m[1], m[1], m[2]],
            lambda m: [*m, m[1]],
            lambda m: [*m, (renamed(m[1][0], "extra"), m[1][1])],
        ],
        ids=[
            "absolute", "dots", "other folder", "other file", "link for tensors",
            "link with content", "sparse", "symlink", "hard link", "device", "pipe", "folder",
            "link for a folder", "order", "late lock", "no lock", "missing file", "lock alone", "twice",
            "again at the end", "extra",
        ],
    )  # fmt: skip
    def test_other_members_are_refused(
        self, store: WeightStore, archive: Path, change: Callable[[Members], Members]
    ) -> None:
        rewrite(archive, change(members(archive)))
        with pytest.raises(IntegrityError, match=r"weights\.tar"):
            import_weights(store, archive)

    @pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    def test_other_formats_cannot_hide_names(self, store: WeightStore, archive: Path, format: int) -> None:
        (lock, data), *rest = members(archive)
        long = [(renamed(m, f"{'x' * 150}/{m.name}"), d) for m, d in rest]
        rewrite(archive, [(lock, data), *long], format)
        with pytest.raises(IntegrityError, match=f"expected the plain file {VIT}/config.json"):
            import_weights(store, archive)

    @pytest.mark.parametrize("which", [1, 2])
    def test_other_bytes_are_refused_with_both_hashes(self, store: WeightStore, archive: Path, which: int) -> None:
        content = members(archive)
        member, data = content[which]
        other = data[:-1] + bytes([data[-1] ^ 1])
        content[which] = member, other
        rewrite(archive, content)
        hashes = [hashlib.sha256(d).hexdigest() for d in (data, other)]
        with pytest.raises(IntegrityError, match=f"{member.name} is not what .*{hashes[0]}, got {hashes[1]}"):
            import_weights(store, archive)

    @pytest.mark.parametrize("size", [-512, 512], ids=["short", "long"])
    def test_other_sizes_are_refused(self, store: WeightStore, archive: Path, size: int) -> None:
        (lock, config, (member, data)) = members(archive)
        data = data[:size] if size < 0 else data + b"\0" * size
        member.size = len(data)
        rewrite(archive, [lock, config, (member, data)])
        with pytest.raises(IntegrityError, match=r"model\.safetensors"):
            import_weights(store, archive)

    @pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.99])
    def test_an_archive_cut_short(self, store: WeightStore, archive: Path, part: float) -> None:
        data = archive.read_bytes().rstrip(b"\0")
        archive.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(IntegrityError, match=r"weights\.tar"):
            import_weights(store, archive)

    def test_something_else(self, store: WeightStore, archive: Path) -> None:
        archive.write_bytes(b"PK\x03\x04" + bytes(5000))
        with pytest.raises(IntegrityError, match=r"weights\.tar: expected weights\.lock\.json next"):
            import_weights(store, archive)

    @pytest.mark.parametrize(
        "change",
        [
            lambda lock: lock.replace(f'"{VIT}"', '"../../escape"'),
            lambda lock: lock.replace(f'"{VIT}"', '"/etc"'),
            lambda lock: lock.replace('"config.json"', '"../config.json"'),
            lambda lock: lock.replace("{", "[", 1),
            lambda lock: "x" * (2 << 20),
        ],
        ids=["dots", "absolute", "dots in a file", "no lock", "long"],
    )
    def test_a_hostile_lock_is_refused(self, store: WeightStore, archive: Path, change: Callable[[str], str]) -> None:
        (lock, data), *rest = members(archive)
        data = change(data.decode()).encode()
        lock.size = len(data)
        rewrite(archive, [(lock, data), *rest])
        with pytest.raises(IntegrityError, match=r"weights\.lock\.json"):
            import_weights(store, archive)

    def test_a_file_longer_than_any_is_refused_before_it_is_written(
        self, store: WeightStore, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights_archive, "FILE_LIMIT", 1000)
        with pytest.raises(IntegrityError, match=r"model\.safetensors of at most 1000 bytes"):
            import_weights(store, archive)

    def test_the_name_of_the_shipped_one_is_taken(self, store: WeightStore, archive: Path) -> None:
        (lock, data), *rest = members(archive)
        data = data.replace(f'"{VIT}"'.encode(), b'"embedded"')
        lock.size = len(data)
        rewrite(archive, [(lock, data), *((renamed(m, m.name.replace(VIT, "embedded")), d) for m, d in rest)])
        with pytest.raises(WeightsError, match="embedded ships with the package"):
            import_weights(store, archive)


class TestAgainstTheStoresLock:
    """An archive cannot change what is locked already."""

    @pytest.fixture
    def held(self, store: WeightStore, source: WeightStore, tmp_path: Path) -> WeightStore:
        """The store, with other weights under the name."""
        weights = source.weights(VIT)
        write_weights(tmp_path / "own", "timm", weights.config, seed=7)
        bring(store, VIT, tmp_path / "own")
        return store

    def test_other_weights_are_refused_with_both_hashes(
        self, held: WeightStore, archive: Path, source: WeightStore
    ) -> None:
        before = tree(held.root)
        mine, theirs = (read_lock(s.root).weights[VIT].sha256 for s in (held, source))
        with pytest.raises(IntegrityError, match=f"expected sha256 {mine} .*got {theirs} .*--update"):
            import_weights(held, archive)
        assert tree(held.root) == before

    def test_even_when_only_the_bytes_are_others(self, held: WeightStore, archive: Path, source: WeightStore) -> None:
        # The archive's lock says what ours says, its files are the others
        (lock, _), *rest = members(archive)
        data = read_lock(held.root).dump()
        lock.size = len(data)
        rewrite(archive, [(lock, data), *rest])
        with pytest.raises(IntegrityError, match="is not what the archive's lock says"):
            import_weights(held, archive)
        assert held.weights(VIT).network()

    def test_of_an_archive_with_one_such_model_none_is_taken(
        self, held: WeightStore, source: WeightStore, tmp_path: Path
    ) -> None:
        export_weights(source, [CNN, VIT], tmp_path / "two.tar")
        before = tree(held.root)
        with pytest.raises(IntegrityError, match=f"{VIT}/model"):
            import_weights(held, tmp_path / "two.tar")
        assert tree(held.root) == before

    def test_update_moves_the_lock(self, held: WeightStore, archive: Path, source: WeightStore) -> None:
        import_weights(held, archive, update=True)
        assert tree(held.root / VIT) == tree(source.root / VIT)
        assert held.weights(VIT).network()


def test_an_archive_that_is_not_there(store: WeightStore, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.tar cannot be read: No such file"):
        import_weights(store, tmp_path / "none.tar")
