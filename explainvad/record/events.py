"""What the events of a run say, and what they add up to.

===============  =====================================================================  ===================
event            body                                                                   where
===============  =====================================================================  ===================
run_started      lot, files [{image_id, file}], model, config, software, versions,      line 1
                 platform
run_resumed      done: images so far; torn: whether a torn line was dropped; software,  before run_finished
                 versions, platform
fallback         text                                                                   before run_finished
image            an ImageRecord                                                         once for each file
run_finished     LotStatistics; this line's hash is the *results head*                  once
report_rendered  files {name: sha256}; never a signed one anew                          after run_finished
report_signed    a Signing: who, meaning, certificate, sha256 of the file before and    behind the file's rendering
                 after
audit_drawn      an AuditDraw                                                           after run_finished; one open
                                                                                        draw at a time
audit_recorded   an AuditResult; sha256 of the table that was taken in                  behind its draw
===============  =====================================================================  ===================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from explainvad.record.audits import AuditDraw, AuditTrail, results_file
from explainvad.record.ledger import LedgerError, Line
from explainvad.record.signings import Signing, check_signing
from explainvad.record.storage import ARTIFACT_FOLDERS, is_artifact_path
from explainvad.types import AuditResult, Decision, ImageRecord, LotInfo, LotStatistics, ModelCard

T = TypeVar("T")

_AFTERWARDS = ("report_rendered", "report_signed", "audit_drawn", "audit_recorded")  # all that may follow run_finished


@dataclass(frozen=True, slots=True, eq=False)
class RunStart:
    """All that is known before the first image: what is inspected, by which model, how and where.

    ``files`` holds (image_id, path below the lot), one for each file, in the lot's order. ``config`` holds
    every setting that can change a result, alpha among them.
    """

    lot: LotInfo
    files: tuple[tuple[str, str], ...]
    model: ModelCard
    config: Mapping[str, Any]
    software: str
    versions: Mapping[str, str]
    platform: str

    def __post_init__(self) -> None:
        repeated = [image_id for image_id, n in Counter(i for i, _ in self.files).items() if n > 1]
        if repeated:
            raise ValueError(f"image ids must be unique, got {', '.join(repeated[:3])} more than once")


@dataclass(frozen=True, slots=True, eq=False)
class Resumption:
    """A run taken up again: the images recorded ``done`` so far, and whether a ``torn`` line was dropped."""

    done: int
    torn: bool
    software: str
    versions: Mapping[str, str]
    platform: str


RECORD = TypeAdapter(ImageRecord)
STATISTICS = TypeAdapter(LotStatistics)
RESUMPTION = TypeAdapter(Resumption)
DRAW = TypeAdapter(AuditDraw)
SIGNING = TypeAdapter(Signing)
_AUDIT = TypeAdapter(AuditResult)
_START = TypeAdapter(RunStart)
_TEXTS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


def to_json(adapter: TypeAdapter[T], value: T) -> dict[str, Any]:
    """Return ``value`` as JSON that :func:`from_json` reads back. Raises ValueError where that cannot be done."""
    body: dict[str, Any] = adapter.dump_python(value, mode="json", warnings="error")
    from_json(adapter, body)
    return body


def from_json(adapter: TypeAdapter[T], body: Mapping[str, Any]) -> T:
    """Read a body, refusing whatever would not be written as it is. Raises ValueError."""
    try:
        value = adapter.validate_python(body)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise ValueError("; ".join(faults)) from error
    if not _covers(adapter.dump_python(value, mode="json"), body):
        raise ValueError("unknown members, or values of another type than is written")
    return value


def _covers(written: Any, read: Any) -> bool:
    """Whether all that was read would be written again; members that an older version lacked may come on top."""
    if isinstance(written, dict) and isinstance(read, dict):
        return all(key in written and _covers(written[key], read[key]) for key in read)
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return written == read or all(map(_covers, written, read))
    return bool(written == read)


def start_to_json(start: RunStart) -> dict[str, Any]:
    """Return the body of ``run_started``."""
    files = [{"image_id": image_id, "file": file} for image_id, file in start.files]
    return {**to_json(_START, start), "files": files}


def _start_from_json(body: Mapping[str, Any]) -> RunStart:
    files = [[entry["image_id"], entry["file"]] for entry in body["files"]]
    return from_json(_START, {**body, "files": files})


def audit_to_json(result: AuditResult, sha256: str) -> dict[str, Any]:
    """Return the body of ``audit_recorded``; ``sha256`` is that of the table with the results."""
    return {**to_json(_AUDIT, result), "sha256": sha256}


def _audit_from_json(body: Mapping[str, Any]) -> tuple[AuditResult, str]:
    digest = from_json(_TEXTS, {"sha256": body["sha256"]})["sha256"]
    return from_json(_AUDIT, {key: value for key, value in body.items() if key != "sha256"}), digest


@dataclass(slots=True)
class History:
    """The state that the lines of a ledger add up to."""

    start: RunStart | None = None
    started_at: str = ""
    files: Mapping[str, str] = field(default_factory=dict)  # image_id -> path below the lot
    resumed: int = 0
    fallbacks: list[str] = field(default_factory=list)
    records: dict[str, ImageRecord] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)  # of all records: path -> sha256
    statistics: LotStatistics | None = None
    finished_at: str = ""
    head: str | None = None  # of the results: hash of the run_finished line
    n_lines: int = 0  # up to the results head
    rendered: dict[str, str] = field(default_factory=dict)  # name -> sha256, the latest of each
    rendered_after: dict[str, int] = field(default_factory=dict)  # name -> how many audits it can tell of
    signings: list[Signing] = field(default_factory=list)
    audits: AuditTrail = field(default_factory=AuditTrail)

    @classmethod
    def of(cls, lines: Iterable[Line]) -> History:
        """Replay a ledger from its first line. Raises LedgerError at the first line that cannot be right."""
        history = cls()
        for line in lines:
            history.apply(line)
        return history

    @property
    def finished(self) -> bool:
        """Whether the results are complete."""
        return self.statistics is not None

    @property
    def missing(self) -> list[str]:
        """Image ids that have no line yet, in the lot's order."""
        return [image_id for image_id in self.files if image_id not in self.records]

    @property
    def passed(self) -> list[ImageRecord]:
        """The images recorded so far that were neither flagged nor left out, in the lot's order."""
        records = (self.records.get(image_id) for image_id in self.files)
        return [record for record in records if record is not None and record.decision.passed]

    def apply(self, line: Line) -> None:
        """Take one line into account. Raises LedgerError, and changes nothing, when it cannot be right."""
        try:
            if (line.number == 1) != (line.event == "run_started"):
                raise ValueError("line 1 must be run_started, and no other line")
            if self.finished != (line.event in _AFTERWARDS):
                raise ValueError(f"out of place {'behind' if self.finished else 'before'} run_finished")
            self._take(line)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise LedgerError(line.number, f"{line.event}: {error}") from error

    def check_record(self, record: ImageRecord) -> None:
        """Raise ValueError unless ``record`` is the first one of a file of this run, with artifacts of its own."""
        image_id = record.image_id
        if self.files.get(image_id) != record.file:
            raise ValueError(f"no file {record.file!r} with the id {image_id!r} in this run")
        if image_id in self.records:
            raise ValueError(f"{image_id} is recorded already")
        for path in record.artifacts:
            if not is_artifact_path(path):
                folders = ", ".join(ARTIFACT_FOLDERS)
                raise ValueError(f"{image_id}: artifacts are plain relative paths in {folders}, got {path!r}")
            if path in self.artifacts:
                raise ValueError(f"{image_id}: the artifact {path} belongs to another image")
        for kept in record.explanation.maps if record.explanation else ():
            if kept.path not in record.artifacts:
                raise ValueError(f"{image_id}: the map {kept.path!r} is none of its artifacts")

    def check_statistics(self, statistics: LotStatistics) -> None:
        """Raise ValueError unless every file is recorded and the counts add up."""
        if self.missing:
            raise ValueError(f"{len(self.missing)} files have no image line, {self.missing[0]} the first of them")
        found = Counter(record.decision for record in self.records.values())
        n_inspected = len(self.records) - found[Decision.NOT_INSPECTED]
        counts = {decision.value: found[decision] for decision in Decision}
        for name, expected in (("n_files", len(self.files)), ("n_inspected", n_inspected), ("counts", counts)):
            if (got := getattr(statistics, name)) != expected:
                raise ValueError(f"the statistics do not add up: {name} must be {expected}, got {got}")

    def check_draw(self, draw: AuditDraw) -> None:
        """Raise ValueError unless ``draw`` is the next one, of the images that passed."""
        self.audits.check_draw(draw, [record.image_id for record in self.passed])

    def check_signing(self, signing: Signing) -> None:
        """Raise ValueError unless ``signing`` goes on from the latest state of its file."""
        check_signing(signing, self.signings, self.rendered)

    def signed_and_changed(self, files: Mapping[str, str]) -> list[str]:
        """The names among ``files`` (name -> sha256) that hold signatures, in another state than the recorded one."""
        signed = {signing.file for signing in self.signings}
        return [name for name, digest in files.items() if name in signed and digest != self.rendered[name]]

    def _take(self, line: Line) -> None:
        match line.event:
            case "run_started":
                self.start, self.started_at = _start_from_json(line.body), line.time
                self.files = dict(self.start.files)
            case "run_resumed":
                from_json(RESUMPTION, line.body)
                self.resumed += 1
            case "fallback":
                self.fallbacks.append(from_json(_TEXTS, line.body)["text"])
            case "image":
                record = from_json(RECORD, line.body)
                self.check_record(record)
                self.records[record.image_id] = record
                self.artifacts.update(record.artifacts)
            case "run_finished":
                statistics = from_json(STATISTICS, line.body)
                self.check_statistics(statistics)
                self.statistics, self.finished_at = statistics, line.time
                self.head, self.n_lines = line.sha256, line.number
            case "report_rendered":
                files = from_json(_TEXTS, line.body["files"])
                if signed := self.signed_and_changed(files):
                    raise ValueError(f"{signed[0]} is signed, and was rendered again")
                self.rendered.update(files)
                self.rendered_after.update(dict.fromkeys(files, len(self.audits.results)))
            case "report_signed":
                signing = from_json(SIGNING, line.body)
                self.check_signing(signing)
                self.signings.append(signing)
                self.rendered[signing.file] = signing.after
            case "audit_drawn":
                draw = from_json(DRAW, line.body)
                self.check_draw(draw)
                self.audits.draws.append(draw)
            case "audit_recorded":
                result, digest = _audit_from_json(line.body)
                self.audits.check_result(result)
                self.audits.results.append(result)
                self.audits.files[results_file(result.n_draws)] = digest
            case _:
                raise ValueError("unknown event")
