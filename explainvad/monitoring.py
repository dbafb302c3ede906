"""Between record and uncertainty: what earlier lots of a model say of a lot, and what the lot leaves to later ones.

The stream of scores watches ordinary images only, those below the ORDINARY quantile of the calibration scores, among
the calibration images as well: defects in a lot are no drift of the process, and are counted elsewhere. Given that
limit, the ordinary calibration scores and the ordinary scores of new images are still exchangeable with one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from explainvad.errors import StorageError
from explainvad.record.history import FinishedLot, LotHistory, history_path, lot_content
from explainvad.record.run import Run
from explainvad.types import Drift, ImageRecord, LotStatistics
from explainvad.uncertainty.calibration_set import CalibrationSet
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.control_chart import p_chart
from explainvad.uncertainty.drift import STREAMS, Stream, theta

ORDINARY = 0.9  # of the calibration scores
_DIGEST = 16  # hex digits of a sha256 that tell images apart


@dataclass(frozen=True, slots=True, eq=False)
class _Images:
    """Inspected images as the streams see them: all tuples have one entry for each."""

    ids: tuple[str, ...]
    digests: tuple[str, ...]
    cells: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]  # by stream

    @classmethod
    def of(cls, records: Iterable[ImageRecord], seen: set[str], calibrator: Calibrator) -> _Images:
        """Those of a lot that no earlier lot held: an image that comes twice is not exchangeable with the others."""
        gates = calibrator.scales.gates
        new = [(r, r.verdict) for r in records if r.verdict is not None and _digest(r.sha256) not in seen]
        values = {
            "scores": tuple(v.score for _, v in new),
            "acquisition": tuple(gates.deviation({gate.name: gate.value for gate in v.gates}) for _, v in new),
        }
        ids, digests = tuple(r.image_id for r, _ in new), tuple(_digest(r.sha256) for r, _ in new)
        return cls(ids, digests, tuple(v.cell for _, v in new), values)


def finish(
    run: Run, lot_id: str, summary: LotStatistics, calibrator: Calibrator, model: Path, model_id: str, few: bool
) -> None:
    """Close a run's results with drift and control chart, and enter the lot in the history beside the model.

    The history is held from reading what came before to writing this lot. Where it cannot be written the run is
    finished all the same, from this lot alone, and the report says so. A run that was finished before is only
    entered, should that have been cut short. Raises IntegrityError when the history was altered.
    """
    records = list(run.done.values())
    content = lot_content([record.sha256 for record in records])
    n_flagged = sum(record.flagged for record in records)
    with _opened(run, model, model_id) as history:
        earlier = history.before(content) if history else ()
        new = _Images.of(records, {digest for lot in earlier for digest in lot.images}, calibrator)
        streams = _streams(earlier, lot_id, new, calibrator, few)
        if not run.finished:
            run.finish(_monitored(summary, earlier, lot_id, streams, n_flagged))
        if history is None:
            return
        assert run.head is not None
        history.append(
            FinishedLot(
                model_id=model_id,
                lot_id=lot_id,
                content=content,
                head=run.head,
                finished_at=run.finished_at,
                n_inspected=summary.n_inspected,
                n_flagged=n_flagged,
                images=new.digests,
                cells=new.cells,
                values=new.values,
                states={stream.name: stream.state() for stream in streams},
            )
        )


@contextmanager
def _opened(run: Run, model: Path, model_id: str) -> Iterator[LotHistory | None]:
    """The history beside the model; None, and a line in the record, where it cannot be written."""
    try:
        history = LotHistory.open(history_path(model), model_id)
    except StorageError as error:
        if not run.finished:
            run.fallback(f"history of the model not kept, so drift and control chart know this lot alone: {error}")
        yield None
        return
    with history:
        yield history


def _streams(
    earlier: Sequence[FinishedLot], lot_id: str, new: _Images, calibrator: Calibrator, few: bool
) -> list[Stream]:
    """Both streams after the lot.

    Calibration values enter unless they come from leaving images out: those are larger than what a new image gets.
    """
    after = []
    for name in STREAMS:
        limits = {cell: _ordinary(cal) if name == "scores" else math.inf for cell, cal in calibrator.cells.items()}
        known = {} if few else {cell: _column(cal, name) for cell, cal in calibrator.cells.items()}
        known = {cell: values[values < limits[cell]] for cell, values in known.items()}
        stream = Stream.begin(name, known)
        if earlier:
            values = [value for lot in earlier for value in lot.values[name]]
            cells = [cell for lot in earlier for cell in lot.cells]
            kept = _watched(values, cells, limits)
            state = earlier[-1].states[name]
            stream = Stream.resume(name, known, [values[i] for i in kept], [cells[i] for i in kept], state)
        kept = _watched(new.values[name], new.cells, limits)
        after.append(
            stream.advance(
                lot_id,
                [new.ids[i] for i in kept],
                [new.values[name][i] for i in kept],
                [theta(new.digests[i]) for i in kept],
                [new.cells[i] for i in kept],
            )
        )
    return after


def _watched(values: Sequence[float], cells: Sequence[str], limits: Mapping[str, float]) -> list[int]:
    """Places of the values below the limit of their cell."""
    return [i for i, (value, cell) in enumerate(zip(values, cells, strict=True)) if value < limits[cell]]


def _column(known: CalibrationSet, stream: str) -> NDArray[np.float64]:
    return known.fused if stream == "scores" else known.deviation


def _ordinary(known: CalibrationSet) -> float:
    """A fixed order statistic of the calibration scores: given its value, the rest of them stay exchangeable."""
    return float(np.sort(known.fused)[math.ceil(ORDINARY * known.n) - 1])


def _digest(sha256: str | None) -> str:
    return (sha256 or "")[:_DIGEST]


def _monitored(
    summary: LotStatistics, earlier: Sequence[FinishedLot], lot_id: str, streams: Sequence[Stream], n_flagged: int
) -> LotStatistics:
    drift = Drift(
        tuple(stream.result() for stream in streams),
        n_lots=len(earlier),
        n_images=sum(lot.n_inspected for lot in earlier),
    )
    counted = [(lot.lot_id, lot.n_inspected, lot.n_flagged) for lot in earlier]
    return replace(summary, drift=drift, chart=p_chart([*counted, (lot_id, summary.n_inspected, n_flagged)]))
