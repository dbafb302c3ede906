"""Bytes of an image file -> RGB pixels, or a one-line reason why not. Nothing is ever half decoded.

Every mapping to 8 bits is fixed by the file's format and depth, never by the values of one image, so that
equal parts keep equal pixels. Metadata is read for the orientation only and is not carried along.
"""

from __future__ import annotations

import struct
import warnings
from contextlib import ExitStack
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Importing the two plugins registers them without Pillow's forty others.
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    ImageFile,
    ImageOps,
    MpoImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from explainvad.errors import UnreadableImageError

MAX_PIXELS = 100_000_000
MIN_SIDE = 16
MAX_COUNTED_PAGES = 100
BACKDROP = 128  # mid grey below transparent pixels: neither a highlight nor a hole

_SUFFIXES = {
    "PNG": {".png", ".apng"},
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "TIFF": {".tif", ".tiff"},
    "BMP": {".bmp", ".dib"},
    "GIF": {".gif"},
    "WEBP": {".webp"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
}
_SIGNATURES = {
    "PNG": (b"\x89PNG",),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
    "GIF": (b"GIF8",),
    "PPM": tuple(b"P%c%c" % (digit, space) for digit in b"123456f" for space in b" \t\r\n"),
}
_FOREIGN = {
    b"%PDF": "PDF document",
    b"PK\3\4": "ZIP archive",
    b"\x1f\x8b": "gzip archive",
    b"8BPS": "Photoshop image",
    b"\0\0\0\x0cjP  ": "JPEG 2000 image",
    b"\xffO\xffQ": "JPEG 2000 image",
    b"\0\0\1\0": "icon",
    b"\x93NUMPY": "NumPy array",
}


class _StrictPillow:
    """Hold Pillow's process-wide switches at safe values while any thread decodes.

    Other libraries set ``LOAD_TRUNCATED_IMAGES`` or ``MAX_IMAGE_PIXELS`` for the whole process. The first
    thread in remembers their values, the last one out puts them back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._restore = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                lenient, limit = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
                self._restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
                self._restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", limit)
                self._restore.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._users += 1
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore.close()


_strict_pillow = _StrictPillow()


def decode(data: bytes, suffix: str = "") -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode the bytes of one image file.

    Returns pixels, uint8 RGB of shape (H, W, 3), upright, and notes that say what was done to get there.
    ``suffix`` is the file's extension; it never decides anything, but a wrong one is noted.

    Raises :class:`explainvad.errors.UnreadableImageError`, and nothing else, with the reason in one line.
    """
    kind = _sniff(data)
    with _strict_pillow:
        try:
            pixels, notes = _decode(data, kind)
        except UnreadableImageError:
            raise
        except Exception as error:  # Pillow's plugins let almost any exception through
            raise UnreadableImageError(_reason(error, kind)) from error
        disturbed = ImageFile.LOAD_TRUNCATED_IMAGES
    if disturbed:  # another thread has just switched it on, so this may be half an image
        return decode(data, suffix)
    if suffix and suffix.lower() not in _SUFFIXES[kind]:
        notes.insert(0, f"extension {ascii(suffix)[1:-1]}, content is {kind}")
    return pixels, tuple(notes)


def _sniff(data: bytes) -> str:
    """Name the format by its content, or refuse."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    for kind, signatures in _SIGNATURES.items():
        if data.startswith(signatures):
            return kind

    # Say what it is instead
    if not data:
        raise UnreadableImageError("file is empty")
    if not data.strip(b"\0"):
        raise UnreadableImageError("not an image: nothing but zero bytes; copy the file again")
    foreign = next((name for start, name in _FOREIGN.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        foreign = "HEIF or AVIF image, or video"
    if data[128:132] == b"DICM":
        foreign = "DICOM file"
    if foreign:
        raise UnreadableImageError(f"unsupported format ({foreign}); save it as PNG, TIFF or JPEG")
    head = data[:1000]
    text = head.decode("utf-8", "ignore")  # a character cut in two at the end is still text
    is_text = text and len(text.encode()) > len(head) - 4 and all(c.isprintable() or c.isspace() for c in text)
    raise UnreadableImageError(f"not an image: {'text' if is_text else 'unknown'} content")


def _reason(error: Exception, kind: str) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory to decode this {kind}"
    if isinstance(error, Image.DecompressionBombError):
        return f"over the limit of {MAX_PIXELS // 10**6} megapixels"
    if isinstance(error, UnidentifiedImageError):
        return f"{kind} with an unreadable header: damaged, truncated, or of an unsupported pixel type"
    text = ascii(" ".join(str(error).split()))[1:-1][:100]
    if isinstance(error, (EOFError, IndexError, struct.error)) or "truncated" in text.lower():
        return f"truncated {kind}: the file ends before the picture does; copy it again"
    return f"damaged {kind}: {text or type(error).__name__}; copy it again"


def _decode(data: bytes, kind: str) -> tuple[NDArray[np.uint8], list[str]]:
    stream = BytesIO(data)
    notes: list[str] = []
    with Image.open(stream, formats=[kind]) as image:
        # Refuse by what the header says, before any pixel is decoded
        header_end = stream.tell()
        size = f"{image.width} x {image.height} px"
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImageError(f"{size}: over the limit of {MAX_PIXELS // 10**6} megapixels")
        if min(image.size) < MIN_SIDE:
            raise UnreadableImageError(f"{size}: smaller than {MIN_SIDE} px a side")
        _check_frames(image, notes)
        full_scale = _full_scale(image)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image)

        # Catch the damage that Pillow decodes without a word
        if kind == "PNG":
            with Image.open(BytesIO(data), formats=[kind]) as twin:
                twin.verify()  # the checksums of all chunks
        if kind == "JPEG" and data.find(b"\xff\xd9", header_end) < 0:
            raise UnreadableImageError("truncated JPEG: its end marker is missing; copy it again")

        # Turn upright; the plugin for TIFF does so while it loads
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if orientation in range(2, 9):
            notes.append(f"turned upright (orientation {orientation})")
        return _to_rgb(image, kind, full_scale, notes), notes


def _check_frames(image: ImageFile.ImageFile, notes: list[str]) -> None:
    """Refuse more than one picture: a verdict on the first would be silent about the rest."""
    if not getattr(image, "is_animated", False):
        return
    if isinstance(image, MpoImagePlugin.MpoImageFile):
        entries: Any = image.mpinfo and image.mpinfo[0xB002]
        if all("Thumbnail" in entry["Attribute"]["MPType"] for entry in entries[1:]):
            notes.append("embedded previews left out")
            return
    count = getattr(image, "n_frames", 2) if image.format != "TIFF" else _count_pages(image)
    raise UnreadableImageError(f"{count} frames or pages, expected one; save each as a file of its own")


def _count_pages(image: ImageFile.ImageFile) -> str:
    """Count the pages of a TIFF, up to a limit: Pillow would take quadratic time over a million of them."""
    for page in range(1, MAX_COUNTED_PAGES + 1):
        try:
            image.seek(page)
        except EOFError:
            return str(page)
    return f"more than {MAX_COUNTED_PAGES}"


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse the TIFFs that Pillow would misread without a word."""
    tags = image.tag_v2
    planar = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2
    if 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)):
        raise UnreadableImageError("TIFF with signed values; save it as unsigned 8-bit or 16-bit")
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0 and image.mode not in ("1", "L"):
        raise UnreadableImageError("TIFF of over 8 bits in which zero is white; save it with zero as black")
    if planar and max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8:
        raise UnreadableImageError("TIFF with separate planes of over 8 bits; save it with interleaved colours")
    boxes = [tile.extents or (0, 0, *image.size) for tile in image.tile]
    covered = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)
    planes = len(image.getbands()) if planar and not image.use_load_libtiff else 1
    if covered < image.width * image.height * planes:
        raise UnreadableImageError("truncated TIFF: strips or tiles are missing; copy it again")


def _full_scale(image: ImageFile.ImageFile) -> int:
    """The sample value that the file's depth or header declares as white; 0 where nothing declares one."""
    args = image.tile[0].args if image.tile else None
    rawmode, *rest = args if isinstance(args, tuple) else (args,)
    if image.format == "PPM" and len(rest) == 1:
        return int(rest[0])
    if image.format in ("PNG", "TIFF", "PPM") and ";16" in str(rawmode):
        return 65535
    if rawmode == "I;12":
        return 4095
    return 0 if image.mode in ("I", "F") else 255


def _to_rgb(image: Image.Image, kind: str, full_scale: int, notes: list[str]) -> NDArray[np.uint8]:
    """Map any mode to uint8 (H, W, 3), and note how."""
    is_wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if full_scale == 65535:  # of 16-bit colour, Pillow keeps the high byte
        notes.append(f"16-bit, shown as value / {'257' if is_wide or kind == 'PPM' else '256, rounded down'}")
    elif full_scale not in (0, 255):
        notes.append(f"values up to {full_scale}, shown as value x 255 / {full_scale}")
    if is_wide:
        return np.repeat(_to_8_bits(image, full_scale, notes)[:, :, None], 3, axis=2)

    rgb: Image.Image | None = image
    if image.has_transparency_data:
        rgb = _flatten(image, notes)
    elif image.mode == "LAB":
        notes.append("LAB converted to sRGB")
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        rgb = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    elif image.mode in ("CMYK", "YCbCr"):
        notes.append(f"{image.mode} converted to RGB without a colour profile")
    assert rgb is not None  # the transform is not in place
    return np.array(rgb if rgb.mode == "RGB" else rgb.convert("RGB"))


def _to_8_bits(image: Image.Image, full_scale: int, notes: list[str]) -> NDArray[np.uint8]:
    """Map one wide channel to uint8 (H, W), by the declared full scale or, for floats, by 1."""
    values = np.asarray(image)
    if "transparency" in image.info:
        raise UnreadableImageError("16-bit with a transparent value; save it without transparency")
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # also NaN
            raise UnreadableImageError("floating-point values outside 0 to 1; save it as 8-bit or 16-bit")
        notes.append("floating point, shown as value x 255")
        white = 1
    elif full_scale == 0:
        raise UnreadableImageError("32-bit integers have no fixed full scale; save it as 8-bit or 16-bit")
    else:
        white = 65535 if image.mode == "I" else full_scale  # Pillow has stretched an "I" already
    grey: NDArray[np.uint8] = np.rint(values * np.float32(255 / white)).astype(np.uint8)
    return grey


def _flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Lay an image with transparency over the backdrop; one that is opaque throughout is left as it is."""
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return rgba
    notes.append(f"transparent pixels laid over mid grey ({BACKDROP})")
    backdrop = Image.new("RGBA", rgba.size, (BACKDROP, BACKDROP, BACKDROP, 255))
    return Image.alpha_composite(backdrop, rgba)
