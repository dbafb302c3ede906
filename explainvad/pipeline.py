"""The whole flow: reference images -> fitted inspector -> inspected lot -> record -> report."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.attribution.references import ReferenceGallery
from explainvad.attribution.regions import ThresholdAttributor, cluster_mass
from explainvad.bundle import read_bundle, write_bundle
from explainvad.config import InspectionConfig, parse_config
from explainvad.detection.ensemble import EmbeddedEnsemble
from explainvad.errors import LotError, NotFittedError, UnreadableImageError, UsageError
from explainvad.inspection import artifacts, describe, inspected, not_inspected
from explainvad.lot import LazyImages, LotFile, collect_references, read_image, read_lot_info, scan
from explainvad.model_card import model_card, size_range, versions
from explainvad.record.events import RunStart
from explainvad.record.ledger import utc_now
from explainvad.record.run import Run
from explainvad.reporting import load_report
from explainvad.types import ImageRecord, InspectionImage, LotReport, ModelCard, Progress
from explainvad.uncertainty.acquisition import acquisition_features
from explainvad.uncertainty.calibrator import Calibrator, Scored
from explainvad.uncertainty.conformal import images_needed, require_images
from explainvad.uncertainty.lot_statistics import summarise
from explainvad.uncertainty.splits import Split, group_labels, grouped_split

MAP_RANGE = 4.0  # pixel thresholds that the 16 bits of a kept map span


class Inspector:
    """A fitted model: inspects images, and lots of them."""

    def __init__(
        self,
        config: InspectionConfig,
        ensemble: EmbeddedEnsemble,
        calibrator: Calibrator,
        gallery: ReferenceGallery,
        split: Split,
        fitted: dict[str, Any],
        model_id: str = "",
    ) -> None:
        self.config, self.ensemble, self.calibrator, self.gallery = config, ensemble, calibrator, gallery
        self.split, self.fitted, self.model_id = split, fitted, model_id

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
        report = progress or (lambda *_: None)
        started = time.monotonic()
        images = _readable(references, "reference")
        labels, grouping = group_labels([image.file for image in images.files], group)
        split = grouped_split(labels, grouping, config.seed, images_needed(config.alpha))
        labelled = _labelled_defects(Path(defects)) if defects is not None else ()
        if labelled:
            require_images(len(labelled), config.beta, "accepting (on labelled defects)")
        fit_images = images.subset(split.fit)
        ensemble = EmbeddedEnsemble.fit(
            fit_images, config.seed, **config.detection.model_dump(), device=config.device, progress=progress
        )
        gallery = ReferenceGallery.fit(fit_images)
        n_scored = len(split.norm) + len(split.cal)
        counter = iter(range(1, n_scored + 1))

        def scored(indices: Sequence[int]) -> Iterator[Scored]:
            for image in images.subset(indices):
                yield ensemble.score(image), acquisition_features(image, gallery.nearest(image)[0].distance)
                report("calibrating", next(counter), n_scored)

        calibrator = Calibrator.fit(
            scored(split.norm), scored(split.cal), (ensemble.score(image) for image in labelled), cluster_mass
        )
        sizes = [(image.width, image.height) for image in images]
        fitted = {
            "fitted_at": utc_now(),
            # under SOURCE_DATE_EPOCH the same input must give the same bytes, so no stopwatch either
            "fit_seconds": None if "SOURCE_DATE_EPOCH" in os.environ else round(time.monotonic() - started, 1),
            "sizes": [[min(side), max(side)] for side in zip(*sizes, strict=True)],
            "versions": versions(),
            "skipped": [f"{file}: {reason}" for file, reason in images.skipped],
        }
        return cls(config, ensemble, calibrator, gallery, split, fitted)

    def save(self, path: str | Path) -> Path:
        """Write the bundle ``*.evad``."""
        arrays, settings = self.ensemble.state()
        contents = {
            "config": self.config.model_dump(mode="json", exclude={"model", "device"}),
            "ensemble": settings,
            "calibration": self.calibrator.state(),
            "split": asdict(self.split),
            "fitted": self.fitted,
        }
        thumbnails = {"gallery": {"thumbnails": self.gallery.thumbnails}}
        pictures = {f"references/{name}.jpg": data for name, data in self.gallery.pictures.items()}
        self.model_id = write_bundle(Path(path), contents, {**arrays, **thumbnails}, pictures)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Inspector:
        """Read a bundle. Raises ModelNotFoundError, or IntegrityError when a file of it was altered."""
        bundle = read_bundle(Path(path))
        c = bundle.contents
        pictures = {Path(name).stem: data for name, data in sorted(bundle.files.items())}
        return cls(
            parse_config({**c["config"], "device": device}, "load"),
            EmbeddedEnsemble.restore(bundle.tensors, c["ensemble"], device),
            Calibrator.restore(c["calibration"]),
            ReferenceGallery(bundle.tensors["gallery"]["thumbnails"], pictures),
            Split.restore(c["split"]),
            c["fitted"],
            bundle.model_id,
        )

    def card(self, config: InspectionConfig | None = None) -> ModelCard:
        """The model card, with the calibration's promises at the levels of ``config``."""
        config = config or self.config
        if n_defects := len(self.calibrator.defects):
            require_images(n_defects, config.beta, "accepting (on labelled defects)")
        calibration = self.calibrator.facts(self.split, alpha=config.alpha, beta=config.beta, gamma=config.gamma)
        return model_card(self.model_id, config, self.ensemble.cards(), calibration, self.fitted)

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

        ``levels`` override alpha, beta, gamma, q and prior of the model's configuration. An image's verdict depends on
        the model and that image alone. Raises LotError, TooFewImagesError, RunConflictError, StorageError.
        """
        root = Path(lot)
        run_dir = Path(out) if out is not None else Path("reports") / root.resolve().name
        files, info = scan(root), read_lot_info(root)
        if run_dir.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"{run_dir} lies in the lot, where every file is an item: use an --out outside of it")
        config = parse_config({**self.config.model_dump(), **levels}, "analyze")
        if not self.model_id:
            raise NotFittedError("the record names its model by the bundle's hash: save this inspector before analyze")
        card = self.card(config)
        start = RunStart(
            lot=info,
            files=tuple((file.image_id, file.file) for file in files),
            model=card,
            config=config.model_dump(mode="json", exclude={"model", "device"}),
            software=f"explainvad {version('explainvad')}",
            versions=versions(),
            platform=f"{platform.system()} {platform.machine()}",
        )
        with Run.open(run_dir, start) as run:
            if not run.finished:
                for line in card.fallbacks:
                    run.fallback(line)
                seen = {r.sha256: r for r in run.done.values() if r.verdict is not None}
                for number, file in enumerate(files, start=1):
                    if file.image_id not in run.done:
                        run.add(*self._inspect_file(file, root, info.mm_per_pixel, seen, config))
                    if progress:
                        progress("inspecting", number, len(files))
                run.finish(summarise(list(run.done.values()), config.alpha, config.q))
        return load_report(run_dir)

    def _inspect_file(
        self,
        file: LotFile,
        root: Path,
        mm_per_pixel: float | None,
        seen: dict[str | None, ImageRecord],
        config: InspectionConfig,
    ) -> tuple[ImageRecord, dict[str, bytes]]:
        """Inspect one file of a lot, or say why it was not."""
        try:
            image = read_image(file, root=root, mm_per_pixel=mm_per_pixel)
        except UnreadableImageError as error:
            return not_inspected(file, str(error)), {}
        if image.sha256 in seen:
            twin = seen[image.sha256]
            reason = f"same content as {twin.image_id} ({twin.file}), which was inspected"
            return not_inspected(file, reason, image), {}
        if (wrong_size := self._wrong_size(image)) is not None:
            return not_inspected(file, wrong_size, image), {}
        record, files = self.inspect(image, config)
        seen[image.sha256] = record
        return record, files

    def _wrong_size(self, image: InspectionImage) -> str | None:
        """Why the image's size puts it outside what the model knows: a quarter beyond the references' own range."""
        for side, (low, high) in zip((image.width, image.height), self.fitted["sizes"], strict=True):
            slack = (high - low) / 4
            if not low - slack <= side <= high + slack:
                return (
                    f"size {image.width} x {image.height} px, but the model was fitted on "
                    f"{size_range(self.fitted['sizes'])}: photograph it as the references were, or fit a model for it"
                )
        return None

    def inspect(
        self, image: InspectionImage, config: InspectionConfig | None = None
    ) -> tuple[ImageRecord, dict[str, bytes]]:
        """Judge one image. Returns its record and, where it is flagged, the artifacts to keep (path -> bytes)."""
        config = config or self.config
        record, fused_map, picture = self._judge(image, config)
        if not record.flagged:
            return record, {}
        regions = [finding.region for finding in record.findings]
        map_maximum = MAP_RANGE * self.calibrator.pixel_threshold(config.alpha)
        return record, artifacts(image, fused_map, regions, picture, map_maximum)

    def inspect_with_map(self, image: InspectionImage) -> tuple[ImageRecord, NDArray[np.float32]]:
        """Judge one image. Returns its record and the fused anomaly map, float32 (H, W)."""
        record, fused_map, _ = self._judge(image, self.config)
        return record, fused_map

    def _judge(
        self, image: InspectionImage, config: InspectionConfig
    ) -> tuple[ImageRecord, NDArray[np.float32], bytes]:
        """Scores -> verdict -> regions -> findings of one image: record, fused map and nearest reference picture."""
        scores = self.ensemble.score(image)
        fused_map = self.calibrator.fusion.map(scores)
        reference, picture = self.gallery.nearest(image)
        verdict = self.calibrator.verdict(
            scores,
            acquisition_features(image, reference.distance),
            alpha=config.alpha,
            beta=config.beta,
            gamma=config.gamma,
            prior=config.prior,
        )
        record = inspected(image, scores, verdict, reference)
        if record.flagged:
            attributor = ThresholdAttributor(
                cluster_threshold=self.calibrator.cluster_threshold,
                pixel_threshold=self.calibrator.pixel_threshold(config.alpha),
                region_p_value=self.calibrator.region_p_value,
                contributions=self.calibrator.fusion.contributions,
                region_alpha=config.alpha,
                at_least=1 if verdict.p_value <= config.alpha else 0,
            )
            record = replace(record, findings=describe(image, attributor.regions(image, fused_map, scores)))
        return record, fused_map, picture


def _readable(references: str | Path | Sequence[str | Path], what: str) -> LazyImages:
    """The readable images of folders and files; at least one, or LotError naming what was wrong."""
    paths = [references] if isinstance(references, str | Path) else list(references)
    images = LazyImages(collect_references([Path(p) for p in paths]))
    if not images:
        first = f"; the first: {images.skipped[0][0]}: {images.skipped[0][1]}" if images.skipped else ""
        raise LotError(f"no readable {what} image in {', '.join(str(p) for p in paths)}{first}")
    return images


def _labelled_defects(folder: Path) -> LazyImages:
    """Images of labelled defects; a data set's root, which holds good images and masks too, is refused."""
    for other in ("good", "ground_truth"):
        if (folder / other).is_dir():
            raise LotError(f"{folder} holds a folder {other}/: name a folder that holds images of defects only")
    return _readable(folder, "defect")
