"""Segment Anything (Kirillov et al., ICCV 2023) from a state dict: its shapes say which network, and all must fit.

Checkpoints carry no configuration, and segment_anything's own registry unpickles them. Here every size is read from
the shapes of tensors that were loaded without running code, the network is built from them, and then every tensor
must find its place. ``vit_b``, ``vit_l`` and ``vit_h`` are the published ones; others of that make load as well, and so
does MobileSAM (:mod:`explainvad.detection.mobile_sam`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from explainvad.detection.loading import UNBUILDABLE, load_strictly
from explainvad.detection.mobile_sam import MobileEncoder, is_mobile, own_names
from explainvad.errors import WeightsError

MOBILE = "mobile"
DECODER_HEADS = 8  # of every published checkpoint; the one size that no shape tells
MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)  # of channels on [0, 1]
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


@dataclass(frozen=True, slots=True)
class SamShape:
    """The sizes of one network."""

    side: int  # px, of the square frame that it sees
    patch: int  # px
    width: int  # of the image encoder
    depth: int  # blocks of the image encoder
    heads: int
    mlp: int  # width of the hidden layer in each of its blocks
    window: int  # patches; 0 where every block looks at the whole frame
    whole_frame: tuple[int, ...]  # blocks that look at the whole frame
    channels: int  # of the image embedding
    mask_channels: int  # of the prompt encoder
    decoder_depth: int
    decoder_mlp: int
    masks: int  # offered for one prompt
    quality_depth: int  # of the head that predicts each mask's IoU
    quality_width: int

    @property
    def name(self) -> str:
        """vit_b, vit_l, vit_h, or the width and depth of another one."""
        own = f"vit_{self.width}x{self.depth}"
        return next((name for name, shape in PUBLISHED.items() if shape == self), own)


def _published(width: int, depth: int, heads: int, whole_frame: tuple[int, ...]) -> SamShape:
    """Of 1024 px; the image encoders differ, what follows them does not."""
    return SamShape(1024, 16, width, depth, heads, 4 * width, 14, whole_frame, 256, 16, 2, 2048, 3, 3, 256)


PUBLISHED = {
    "vit_b": _published(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _published(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": _published(1280, 32, 16, (7, 15, 23, 31)),
}


def sam_shape(name: str, tensors: Mapping[str, Tensor]) -> SamShape:
    """Read the sizes from the shapes. Raises WeightsError, calling the weights ``name``, where they are of no SAM."""

    def size(key: str, axis: int) -> int:
        if key not in tensors or tensors[key].ndim <= axis:
            raise WeightsError(
                f"{name}: expected a checkpoint of Segment Anything (vit_b, vit_l or vit_h) with the tensor {key}, "
                f"got {', '.join(sorted(tensors)[:3]) or 'no tensors'}{', …' if len(tensors) > 3 else ''}: "
                "get a checkpoint in the format of segment_anything"
            )
        return int(tensors[key].shape[axis])

    def count(prefix: str) -> int:
        return len({key[len(prefix) :].partition(".")[0] for key in tensors if key.startswith(prefix)})

    encoder, decoder = "image_encoder.", "mask_decoder."
    patch, grid = size(f"{encoder}patch_embed.proj.weight", 2), size(f"{encoder}pos_embed", 1)
    width, depth = size(f"{encoder}pos_embed", 3), count(f"{encoder}blocks.")
    # A block's relative positions reach over what it looks at: 2 n - 1 of them for n patches a side
    reach = [(size(f"{encoder}blocks.{i}.attn.rel_pos_h", 0) + 1) // 2 for i in range(depth)]
    head = size(f"{encoder}blocks.0.attn.rel_pos_h", 1)
    return SamShape(
        side=patch * grid,
        patch=patch,
        width=width,
        depth=depth,
        heads=width // max(head, 1),
        mlp=size(f"{encoder}blocks.0.mlp.lin1.weight", 0),
        window=min((n for n in reach if n != grid), default=0),
        whole_frame=tuple(i for i, n in enumerate(reach) if n == grid),
        channels=size(f"{encoder}neck.0.weight", 0),
        mask_channels=size("prompt_encoder.mask_downscaling.3.weight", 0),
        decoder_depth=count(f"{decoder}transformer.layers."),
        decoder_mlp=size(f"{decoder}transformer.layers.0.mlp.lin1.weight", 0),
        masks=size(f"{decoder}mask_tokens.weight", 0) - 1,
        quality_depth=count(f"{decoder}iou_prediction_head.layers."),
        quality_width=size(f"{decoder}iou_prediction_head.layers.0.weight", 0),
    )


def architecture(name: str, tensors: Mapping[str, Tensor]) -> str:
    """vit_b, vit_l, vit_h, mobile, or the sizes of another one. Raises WeightsError where they are of no SAM."""
    return MOBILE if is_mobile(tensors) else sam_shape(name, tensors).name


def sam_network(name: str, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, str]:
    """The ``segment_anything.modeling.Sam`` of these tensors, in evaluation mode, and its :func:`architecture`.

    Raises WeightsError, calling the weights ``name``, when a tensor is missing, left over or of another shape.
    """
    if is_mobile(tensors):
        network, tensors = empty_sam(PUBLISHED["vit_b"], MobileEncoder()), own_names(tensors)
        load_strictly(name, network, tensors)
        return network, MOBILE
    shape = sam_shape(name, tensors)
    try:
        network = empty_sam(shape)
    except UNBUILDABLE as error:
        raise WeightsError(
            f"{name}: no Segment Anything can be built with {shape}: {error}; get other weights"
        ) from error
    load_strictly(name, network, tensors)
    return network, shape.name


def empty_sam(shape: SamShape, encoder: nn.Module | None = None) -> nn.Module:
    """A network of these sizes with random weights, in evaluation mode; with another image ``encoder`` if given."""
    from segment_anything.modeling import (  # type: ignore[import-untyped]
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    grid = shape.side // shape.patch
    network: nn.Module = Sam(
        image_encoder=encoder
        or ImageEncoderViT(
            img_size=shape.side,
            patch_size=shape.patch,
            embed_dim=shape.width,
            depth=shape.depth,
            num_heads=shape.heads,
            mlp_ratio=shape.mlp / shape.width,
            out_chans=shape.channels,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=shape.window,
            global_attn_indexes=shape.whole_frame,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=shape.channels,
            image_embedding_size=(grid, grid),
            input_image_size=(shape.side, shape.side),
            mask_in_chans=shape.mask_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=shape.masks,
            transformer=TwoWayTransformer(
                depth=shape.decoder_depth,
                embedding_dim=shape.channels,
                mlp_dim=shape.decoder_mlp,
                num_heads=DECODER_HEADS,
            ),
            transformer_dim=shape.channels,
            iou_head_depth=shape.quality_depth,
            iou_head_hidden_dim=shape.quality_width,
        ),
        pixel_mean=[255 * value for value in MEAN],
        pixel_std=[255 * value for value in STD],
    )
    return network.eval()
