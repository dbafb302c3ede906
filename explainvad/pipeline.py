"""The whole flow: reference images -> fitted inspector -> inspected lot -> record -> report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.admission import admitted, cells_of, unknown_cell, wrong_size
from explainvad.attribution.references import ReferenceGallery
from explainvad.attribution.sam import SamRefiner
from explainvad.bundle import read_bundle, write_bundle
from explainvad.config import InspectionConfig, RegionsConfig, parse_config
from explainvad.describing import forget_answers, run_describer
from explainvad.detection.profiles import restore_ensemble
from explainvad.errors import NotFittedError, UnreadableImageError, UsageError
from explainvad.explaining import METHODS, explain
from explainvad.explanation.describers.model import ModelDescriber
from explainvad.fitting import Fitted, extend, fit
from explainvad.inspection import artifacts, not_inspected
from explainvad.judging import Judged, judge
from explainvad.kept_maps import SIDE, failed, kept_explanation
from explainvad.lazy_images import LazyImages
from explainvad.lot import LotFile, read_lot_info, read_picture, scan
from explainvad.model_card import model_card, versions
from explainvad.monitoring import finish
from explainvad.record.events import RunStart
from explainvad.record.run import Run
from explainvad.reference_images import reference_names
from explainvad.refining import outline_refiner, recorded_regions
from explainvad.reporting import load_report
from explainvad.types import Explanation, ImageRecord, InspectionImage, LotReport, ModelCard, Progress
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.conformal import require_images
from explainvad.uncertainty.lot_statement import summarise
from explainvad.uncertainty.splits import LEAVE_ONE_OUT, Split

TABLES_OF_RUNS = {"regions", "describer", "attribution"}  # settings that belong to a run, not to a model
MAP_RANGE = 4.0  # pixel thresholds that the 16 bits of a kept map span


class Inspector:
    """A fitted model: inspects images, and lots of them."""

    def __init__(self, config: InspectionConfig, fitted: Fitted, model_id: str = "", path: Path | None = None) -> None:
        self.config, self.model_id, self.path = config, model_id, path
        self.ensemble, self.calibrator, self.gallery = fitted.ensemble, fitted.calibrator, fitted.gallery
        self.split, self.fitted = fitted.split, fitted.facts
        self._refiners: dict[RegionsConfig, SamRefiner | None] = {}
        self._describer: ModelDescriber | None = None  # of one lot

    # -- fitting ----------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        references: str | Path | Sequence[str | Path],
        *,
        config: InspectionConfig | None = None,
        defects: str | Path | None = None,
        group: str | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Inspector:
        """Fit on folders or files of normal images; ``settings`` override fields of the configuration.

        ``defects`` is a folder of labelled defect images, which make ACCEPT possible. ``group`` is a regular expression
        or CSV file that tells which images show one part. Raises UsageError and its children.
        """
        config = parse_config({**(config or InspectionConfig()).model_dump(), **settings}, "fit")
        return cls(config, fit(references, config, defects=defects, group=group, progress=progress))

    def extend(
        self,
        further: str | Path | Sequence[str | Path],
        references: str | Path | Sequence[str | Path],
        *,
        defects: str | Path | None = None,
        group: str | None = None,
        progress: Progress | None = None,
    ) -> Inspector:
        """A new revision of this model whose memory banks hold ``further`` normal images too.

        It is calibrated anew on the ``references`` (and ``defects``) of the first fit, which stay in the splits that
        they were dealt to. Raises UsageError and its children.
        """
        fitted = Fitted(self.ensemble, self.calibrator, self.gallery, self.split, self.fitted)
        extended = extend(fitted, further, references, self.config, defects=defects, group=group, progress=progress)
        extended.facts["extends"] = [*self.fitted.get("extends", ()), self.model_id]
        return type(self)(self.config, extended)

    def save(self, path: str | Path) -> Path:
        """Write the bundle ``*.evad``."""
        arrays, settings = self.ensemble.state()
        contents = {
            "config": self.config.model_dump(mode="json", exclude={"model", "device"} | TABLES_OF_RUNS),
            "ensemble": settings,
            "calibration": self.calibrator.state(),
            "split": asdict(self.split),
            "fitted": self.fitted,
        }
        thumbnails = {"gallery": {"thumbnails": self.gallery.thumbnails}}
        pictures = {f"references/{name}.jpg": data for name, data in self.gallery.pictures.items()}
        self.path = Path(path)
        self.model_id = write_bundle(self.path, contents, {**arrays, **thumbnails}, pictures)
        return self.path

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Inspector:
        """Read a bundle. Raises ModelNotFoundError, or IntegrityError when a file of it was altered."""
        bundle = read_bundle(Path(path))
        c = bundle.contents
        config = parse_config({**c["config"], "device": device}, "load")
        pictures = {Path(name).stem: data for name, data in sorted(bundle.files.items())}
        fitted = Fitted(
            restore_ensemble(bundle.tensors, c["ensemble"], config, device),
            Calibrator.restore(c["calibration"]),
            ReferenceGallery(bundle.tensors["gallery"]["thumbnails"], pictures),
            Split.restore(c["split"]),
            c["fitted"],
        )
        return cls(config, fitted, bundle.model_id, Path(path))

    def card(self, config: InspectionConfig | None = None) -> ModelCard:
        """The model card, with the calibration's promises at the levels of ``config``."""
        config = config or self.config
        for known in self.calibrator.cells.values():
            if len(known.defects):
                require_images(len(known.defects), config.beta, "accepting (on labelled defects)")
        calibration = self.calibrator.facts(self.split, alpha=config.alpha, beta=config.beta, gamma=config.gamma)
        cards, missing = self.ensemble.cards(), self.ensemble.missing
        return model_card(self.model_id, config, cards, missing, calibration, self.fitted)

    # -- inspecting -------------------------------------------------------------------------------------

    def analyze(
        self,
        lot: str | Path,
        out: str | Path | None = None,
        *,
        progress: Progress | None = None,
        **levels: Any,
    ) -> LotReport:
        """Inspect every file of a lot and record it in ``out`` (default ``reports/<lot>``); resumes a killed run.

        ``levels`` override alpha, beta, gamma, q, prior, confidence, group_by, pages, regions, describer and
        attribution (these three as mappings of their tables' keys) of the model's configuration. An image's verdict
        depends on the model and that image alone. Raises LotError, TooFewImagesError, RunConflictError, StorageError,
        and WeightsError for a Segment Anything or a describer that cannot be loaded.
        """
        root = Path(lot)
        run_dir = Path(out) if out is not None else Path("reports") / root.resolve().name
        files, info = scan(root), read_lot_info(root)
        if run_dir.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"{run_dir} lies in the lot, where every file is an item: use an --out outside of it")
        config = parse_config({**self.config.model_dump(), **levels}, "analyze")
        if self.path is None:
            raise NotFittedError("the record names its model by the bundle's hash: save this inspector before analyze")
        refiner = self._refiner(config)
        card = replace(self.card(config), outlines=refiner.describe() if refiner else None)
        cells = cells_of([file.file for file in files], config.group_by, self.calibrator.cells)
        describer = run_describer(config, info.part, run_dir, progress)
        start = RunStart(
            lot=info,
            files=tuple((file.image_id, file.file) for file in files),
            model=card,
            config=config.model_dump(mode="json", exclude={"model", "device"})
            | {"regions": recorded_regions(config.regions, refiner), "describer": describer.recorded},
            software=f"explainvad {version('explainvad')}",
            versions=versions(),
            platform=f"{platform.system()} {platform.machine()}",
        )
        with Run.open(run_dir, start) as run:
            if not run.finished:
                for line in card.fallbacks:
                    run.fallback(line)
                inspector = self._for_lot(files, describer.model)
                todo = [pair for pair in zip(files, cells, strict=True) if pair[0].image_id not in run.done]
                seen = {r.sha256: r for r in run.done.values() if r.verdict is not None}
                for (file, cell), read in admitted(todo, root, info.mm_per_pixel, self.ensemble):
                    run.add(*inspector._inspect_file(file, cell, read, seen, config))
                    if progress:
                        progress("inspecting", len(run.done), len(files))
                for line in describer.model.fallbacks(run.done.values()) if describer.model else ():
                    run.fallback(line)
                for line in failed(run.done.values()):
                    run.fallback(line)
            summary = summarise(list(run.done.values()), card.calibration, config.q, config.confidence)
            few = self.split.scheme == LEAVE_ONE_OUT
            finish(run, info.lot_id, summary, self.calibrator, self.path, self.model_id, few)
        forget_answers(run_dir)
        return load_report(run_dir)

    def _for_lot(self, files: Sequence[LotFile], describer: ModelDescriber | None) -> Inspector:
        """This inspector, or one whose scorers have read the lot, or that has a describer for it."""
        if not self.ensemble.reads_lot and describer is None:
            return self
        ensemble = self.ensemble.for_lot(LazyImages(files)) if self.ensemble.reads_lot else self.ensemble
        fitted = Fitted(ensemble, self.calibrator, self.gallery, self.split, self.fitted)
        inspector = Inspector(self.config, fitted)
        inspector._describer = describer
        inspector._refiners = self._refiners
        return inspector

    def _inspect_file(
        self,
        file: LotFile,
        cell: str,
        read: Callable[[], InspectionImage],
        seen: dict[str | None, ImageRecord],
        config: InspectionConfig,
    ) -> tuple[ImageRecord, dict[str, bytes]]:
        """Inspect one file of a lot, or say why it was not."""
        try:
            image = read()
        except UnreadableImageError as error:
            return not_inspected(file, str(error)), {}
        if image.sha256 in seen:
            twin = seen[image.sha256]
            reason = f"same content as {twin.image_id} ({twin.file}), which was inspected"
            return not_inspected(file, reason, image), {}
        if (unfit := wrong_size(image, self.fitted["sizes"]) or unknown_cell(cell, self.calibrator.cells)) is not None:
            return not_inspected(file, unfit, image), {}
        record, files = self.inspect(image, config, cell)
        seen[image.sha256] = record
        return record, files

    def inspect(
        self, image: InspectionImage, config: InspectionConfig | None = None, cell: str = ""
    ) -> tuple[ImageRecord, dict[str, bytes]]:
        """Judge one image. Returns its record and, where it gets a page, the artifacts to keep (path -> bytes).

        A model describes regions only in :meth:`analyze`; here their sentences are measured.
        """
        config = config or self.config
        judged = self._judged(image, config, cell)
        if not judged.record.flagged and config.pages == "flagged":
            return judged.record, {}
        regions = [finding.region for finding in judged.record.findings]
        map_maximum = MAP_RANGE * self.calibrator.cell(cell).pixel_threshold(config.alpha)
        doubt = self.calibrator.scales.doubt_map(judged.scores)
        files = artifacts(image, judged.fused_map, doubt, regions, judged.picture, map_maximum)
        methods = config.attribution.maps
        if not judged.record.flagged or not methods:
            return judged.record, files
        explanation, maps = kept_explanation(
            judged.record, methods, lambda at: self._explained(image, methods, at, judged)
        )
        return replace(judged.record, explanation=explanation), files | maps

    def explain(
        self,
        image: InspectionImage | str | Path,
        *,
        methods: Iterable[str] = METHODS,
        at: tuple[int, int] | None = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """Explain an image, or its place ``at`` (x, y) px, as :mod:`explainvad.explaining` says; decides nothing."""
        picture = image if isinstance(image, InspectionImage) else read_picture(image)
        return self._explained(picture, methods, at, progress=progress)

    def _explained(
        self,
        image: InspectionImage,
        methods: Iterable[str],
        at: tuple[int, int] | None,
        judged: Judged | None = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """Of an image that was ``judged`` in a run: with what was found then, and at the size that a run keeps."""
        known: dict[str, Any] = {}
        if judged and judged.record.reference:
            known = {"scores": judged.scores, "reference": (judged.record.reference, judged.picture), "longest": SIDE}
        scorers, named = self.ensemble.scorers, reference_names(self.split, self.fitted)
        return explain(image, scorers, self.gallery, named, methods=methods, at=at, progress=progress, **known)

    def inspect_with_map(self, image: InspectionImage, cell: str = "") -> tuple[ImageRecord, NDArray[np.float32]]:
        """Judge one image. Returns its record and the fused anomaly map, float32 (H, W)."""
        judged = self._judged(image, self.config, cell)
        return judged.record, judged.fused_map

    def _judged(self, image: InspectionImage, config: InspectionConfig, cell: str) -> Judged:
        refiner = self._refiner(config)
        return judge(image, self.ensemble, self.calibrator, self.gallery, config, cell, refiner, self._describer)

    def _refiner(self, config: InspectionConfig) -> SamRefiner | None:
        """What draws the outlines at these settings; its weights are loaded once."""
        if config.regions not in self._refiners:
            self._refiners[config.regions] = outline_refiner(config.regions, self.config.device)
        return self._refiners[config.regions]
