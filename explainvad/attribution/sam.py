"""Outlines by Segment Anything (Kirillov et al., ICCV 2023), kept only where they agree with the evidence.

Regions are clusters of the fused map above a calibrated threshold, and so are their p-values. Such a cluster has the
map's blur. SAM is asked for the thing at that place (:mod:`explainvad.attribution.sam_prompts`); the mask that accounts
best for the evidence becomes the outline when it does so well enough (:mod:`explainvad.attribution.sam_choice`), and
else the threshold's outline stays. Whether there is a region, and how significant it is, SAM never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from explainvad.attribution.sam_choice import choose, own_part
from explainvad.attribution.sam_prompts import SamPrompt, prompt_for
from explainvad.types import InspectionImage, Mask, Refinement, Region


class Segmenter(Protocol):
    """Draws masks in an image at prompts."""

    @property
    def name(self) -> str:
        """As the report calls it: "SAM vit_b"."""
        ...

    def see(self, pixels: NDArray[np.uint8]) -> bool:
        """Look at an image, uint8 RGB (H, W, 3), once for all its prompts; False where it is too narrow to be seen."""
        ...

    def masks(self, prompt: SamPrompt) -> Iterator[tuple[NDArray[np.bool_], float]]:
        """Masks (H, W) of the image last seen, one after the other, each with its predicted quality."""
        ...

    def forget(self) -> None:
        """Let go of the image last seen, and of all that was computed of it."""
        ...


class SamSegmenter:
    """A ``segment_anything.modeling.Sam`` as a :class:`Segmenter`; frames, sizes and normalisation are its own."""

    def __init__(self, network: Any, architecture: str, device: str = "cpu") -> None:
        from segment_anything import SamPredictor  # type: ignore[import-untyped]

        self.name = f"SAM {architecture}"
        self._predictor = SamPredictor(network.to(device).eval())

    def see(self, pixels: NDArray[np.uint8]) -> bool:
        """Compute the image embedding, the slow part."""
        import torch

        transform = self._predictor.transform
        if min(transform.get_preprocess_shape(*pixels.shape[:2], transform.target_length)) < 1:
            return False
        with torch.inference_mode():
            self._predictor.set_image(pixels)
        return True

    def masks(self, prompt: SamPrompt) -> Iterator[tuple[NDArray[np.bool_], float]]:
        """SAM's three masks, brought to the image's size one by one: of an image of 50 MP one takes 200 MB then."""
        import torch

        predictor, network = self._predictor, self._predictor.model
        transform, size = predictor.transform, predictor.original_size
        with torch.inference_mode():
            points = torch.as_tensor(transform.apply_coords(prompt.points, size), dtype=torch.float)
            box = torch.as_tensor(transform.apply_boxes(prompt.box, size), dtype=torch.float)
            labels = torch.as_tensor(prompt.labels)
            sparse, dense = network.prompt_encoder(
                points=(points[None].to(predictor.device), labels[None].to(predictor.device)),
                boxes=box.to(predictor.device),
                masks=None,
            )
            small, quality = network.mask_decoder(
                image_embeddings=predictor.features,
                image_pe=network.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
        for i, expected in enumerate(quality[0].tolist()):
            with torch.inference_mode():
                full = network.postprocess_masks(small[:, [i]], predictor.input_size, size)[0, 0]
                mask = (full > network.mask_threshold).cpu().numpy()
                del full  # not while the mask is looked at
            yield mask, expected

    def forget(self) -> None:
        """Let go of the embedding."""
        self._predictor.reset_image()


class SamRefiner:
    """Gives regions the outline that a segmenter draws, where it agrees with the evidence.

    Args:
        segmenter: sees each image once, and only images that have regions.
        limit: least agreement, in (0, 1], with which its mask becomes the outline.
        source: name, hash and licence of its weights in one line, for the report.
        sha256: of its weights; None of a random initialisation.
    """

    def __init__(self, segmenter: Segmenter, limit: float, source: str = "", sha256: str | None = None) -> None:
        if not 0 < limit <= 1:
            raise ValueError(f"limit must lie in (0, 1], got {limit}")
        self.segmenter, self.limit, self.source, self.sha256 = segmenter, limit, source, sha256

    def describe(self) -> str:
        """Which network with which weights draws outlines, in one line."""
        return f"{self.segmenter.name}: {self.source}"

    def refine(
        self,
        image: InspectionImage,
        fused_map: NDArray[np.float32],
        regions: Sequence[Region],
        cluster_threshold: float,
    ) -> tuple[Region, ...]:
        """The same regions, "R1" first, with outlines; ``fused_map`` (H, W) and threshold are those they were cut from.

        Outlines share no pixel: a region keeps its own cluster, and of what lies between two the heavier takes it.
        """
        if not regions:
            return ()
        if not self.segmenter.see(image.pixels):
            reason = f"the image is too narrow for SAM, {image.width} x {image.height} px"
            return tuple(self._kept(region, 0.0, reason) for region in regions)
        try:
            return self._refined(image, fused_map, regions, cluster_threshold)
        finally:
            self.segmenter.forget()

    def _refined(
        self,
        image: InspectionImage,
        fused_map: NDArray[np.float32],
        regions: Sequence[Region],
        cluster_threshold: float,
    ) -> tuple[Region, ...]:
        """Of an image that the segmenter sees."""
        # clusters are unpacked one by one: of a large image with many regions all of them would fill the memory
        taken = np.zeros(fused_map.shape, dtype=np.bool_)
        for region in regions:
            taken |= region.mask.to_array()
        refined = []
        for region in regions:
            cluster = region.mask.to_array()
            prompt = prompt_for(fused_map, cluster, region.xyxy, region.peak_xy, cluster_threshold)
            excess = fused_map[cluster] - np.float32(cluster_threshold)
            best = choose(self.segmenter.masks(prompt), cluster, excess)
            if best.agreement < self.limit:
                reason = f"SAM disagreed ({_below(best.agreement, self.limit)})"
                refined.append(self._kept(region, best.agreement, reason))
                continue
            outline = own_part(best.mask, cluster, taken & ~cluster)
            taken |= outline
            refined.append(self._outlined(region, outline, best.agreement, image.mm_per_pixel))
        return tuple(refined)

    def _kept(self, region: Region, agreement: float, reason: str) -> Region:
        return replace(region, refinement=Refinement(self.segmenter.name, agreement, self.limit, reason))

    def _outlined(
        self, region: Region, outline: NDArray[np.bool_], agreement: float, mm_per_pixel: float | None
    ) -> Region:
        y, x = np.nonzero(outline)
        return replace(
            region,
            mask=Mask.from_array(outline),
            xyxy=(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1),
            area_px=int(x.size),
            area_mm2=None if mm_per_pixel is None else int(x.size) * mm_per_pixel**2,
            refined_by="sam",
            refinement=Refinement(self.segmenter.name, agreement, self.limit),
        )


def _below(value: float, limit: float) -> str:
    """``0.21 < 0.50``, with as many digits as tell the two apart."""
    digits = next(n for n in range(2, 18) if f"{value:.{n}f}" != f"{limit:.{n}f}" or n == 17)
    return f"{value:.{digits}f} < {limit:.{digits}f}"
