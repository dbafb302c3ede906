"""Images of a fit, decoded at each access, so that memory stays flat however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

from explainvad.errors import UnreadableImageError
from explainvad.lot import LotFile, read_image
from explainvad.types import InspectionImage


class LazyImages(Sequence[InspectionImage]):
    """Readable images in a sequence that decodes what it is asked for.

    Each file is decoded once at the start. ``files`` are the readable ones; ``skipped`` names the others with their
    reasons, among them copies of an image that is there already: they would tie splits together that must not be.
    """

    def __init__(self, files: Iterable[LotFile]) -> None:
        self._images: list[tuple[LotFile, str]] = []
        self.skipped: list[tuple[str, str]] = []
        known: dict[str, str] = {}
        for file in files:
            try:
                sha256 = read_image(file).sha256
            except UnreadableImageError as error:
                self.skipped.append((file.file, str(error)))
                continue
            if sha256 in known:
                self.skipped.append((file.file, f"same content as {known[sha256]}"))
                continue
            known[sha256] = file.file
            self._images.append((file, sha256))

    @property
    def files(self) -> tuple[LotFile, ...]:
        """The readable files, in order."""
        return tuple(file for file, _ in self._images)

    @property
    def sha256(self) -> tuple[str, ...]:
        """The hash of each readable file's bytes, in order."""
        return tuple(sha256 for _, sha256 in self._images)

    def subset(self, indices: Iterable[int]) -> LazyImages:
        """The images at ``indices``, in that order, without decoding any."""
        chosen = LazyImages(())
        chosen._images = [self._images[i] for i in indices]
        return chosen

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> InspectionImage: ...
    @overload
    def __getitem__(self, index: slice) -> LazyImages: ...
    def __getitem__(self, index: int | slice) -> InspectionImage | LazyImages:
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        file, sha256 = self._images[index]
        try:
            image = read_image(file)
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{file.file}: {error}") from error
        if image.sha256 != sha256:
            raise UnreadableImageError(f"{file.file}: changed since it was first read; run again")
        return image
