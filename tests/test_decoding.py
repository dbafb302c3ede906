"""Decoding: what is read, what is refused and why, and that nothing but the documented error ever escapes."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from explainvad import decoding
from explainvad.decoding import decode
from explainvad.errors import UnreadableImageError

RGB = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
GREY16 = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)


def encode(pixels: Any, kind: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def tiff(tags: dict[int, tuple[int, ...]], body: bytes) -> bytes:
    """A little-endian TIFF of one directory; tag 273 (strip offsets) counts from the start of ``body``."""
    tags = dict(sorted(tags.items()))
    start = 8 + 2 + 12 * len(tags) + 4
    spill, entries = b"", b""
    for tag, given_values in tags.items():
        values = tuple(v + start for v in given_values) if tag == 273 else given_values
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, spill = struct.pack("<I", start + len(body) + len(spill)), spill + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + body + spill


def plain_tiff(side: int, bits: tuple[int, ...], body: bytes, **more: tuple[int, ...]) -> bytes:
    tags = {256: (side,), 257: (side,), 258: bits, 259: (1,), 262: (1,), 273: (0,), 277: (len(bits),), 278: (side,)}
    return tiff({**tags, 279: (len(body),), **{int(k[1:]): v for k, v in more.items()}}, body)


@pytest.fixture(autouse=True)
def lenient_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a process whose other libraries have opened all doors."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


LOSSLESS = {
    "PNG": {},
    "TIFF": {},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "BMP": {},
    "PPM": {},
    "WEBP": {"lossless": True},
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_rgb_comes_back_as_it_was_and_without_notes(name: str) -> None:
    pixels, notes = decode(encode(RGB, name.split()[0], **LOSSLESS[name]))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, RGB)
    assert notes == ()


def test_jpeg_is_close() -> None:
    smooth = np.full((32, 48, 3), (200, 40, 90), np.uint8)
    pixels, notes = decode(encode(smooth, "JPEG", quality=95), ".JPG")
    assert np.abs(pixels.astype(int) - smooth).max() <= 3
    assert notes == ()


# -- Colour models and depths ---------------------------------------------------------------------------


def test_grey_and_bilevel_fill_three_equal_channels() -> None:
    bits = RGB[:, :, 0] > 127
    pixels, notes = decode(encode(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat(np.where(bits, 255, 0)[:, :, None], 3, 2))
    assert notes == ()
    pixels, notes = decode(encode(RGB[:, :, 0], "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat(RGB[:, :, :1], 3, 2))
    assert notes == ()


def test_palette_is_expanded() -> None:
    image = Image.new("P", (20, 20), 3)
    image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 10, 200, 30])
    pixels, notes = decode(encode(image, "PNG"))
    assert (pixels == (10, 200, 30)).all()
    assert notes == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_mapped_by_its_depth_and_never_by_its_values(kind: str) -> None:
    pixels, notes = decode(encode(GREY16, kind))
    np.testing.assert_array_equal(pixels[:, :, 1], np.rint(GREY16 / 257))
    assert notes == ("16-bit, shown as value / 257",)
    dark, _ = decode(encode(GREY16 // 100, kind))
    assert dark.max() == round(655 / 257)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
def test_16_bit_colour_keeps_the_full_range(colour: int, channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (20, 20, channels)).astype(">u2")
    values[..., 3:] = 65535
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    pixels, notes = decode(png(20, 20, 16, colour, rows))
    np.testing.assert_array_equal(pixels, values[..., :3] >> 8)
    assert notes == ("16-bit, shown as value / 256, rounded down",)


def test_12_bit_tiff_is_mapped_by_its_depth() -> None:
    body = bytes.fromhex("fff000") * 128  # pairs of 4095 and 0
    pixels, notes = decode(plain_tiff(16, (12,), body))
    assert pixels[0, :4, 0].tolist() == [255, 0, 255, 0]
    assert notes == ("values up to 4095, shown as value x 255 / 4095",)


@pytest.mark.parametrize("maximum", [15, 1023])
def test_portable_maps_are_mapped_by_their_declared_maximum(maximum: int) -> None:
    ramp = np.linspace(0, maximum, 256).astype(">u2" if maximum > 255 else "u1").reshape(16, 16)
    for magic, values in (("P5", ramp), ("P6", np.repeat(ramp[:, :, None], 3, 2))):
        pixels, notes = decode(f"{magic} 16 16 {maximum}\n".encode() + values.tobytes())
        assert np.abs(pixels[:, :, 2] - ramp * (255 / maximum)).max() <= 0.51
        assert notes == (f"values up to {maximum}, shown as value x 255 / {maximum}",)


def test_16_bit_portable_colour_is_not_rounded_down() -> None:
    values = np.full((16, 16, 3), 255, ">u2")
    pixels, notes = decode(b"P6 16 16 65535\n" + values.tobytes())
    assert (pixels == 1).all()
    assert notes == ("16-bit, shown as value / 257",)


def test_float_between_0_and_1_is_mapped_and_anything_else_refused() -> None:
    values = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    pixels, notes = decode(encode(values, "TIFF"))
    np.testing.assert_array_equal(pixels[:, :, 0], np.rint(values * 255))
    assert notes == ("floating point, shown as value x 255",)
    for wrong in (-0.01, 1.01, 255.0, np.nan, np.inf):
        values[3, 3] = wrong
        refused(encode(values, "TIFF"), "floating-point values outside 0 to 1; save it as 8-bit or 16-bit")


def test_transparency_is_laid_over_grey_and_noted_only_where_there_is_some() -> None:
    alpha = np.full((24, 32, 1), 255, np.uint8)
    rgba = np.concatenate([RGB, alpha], axis=2)
    for kind in ("PNG", "TIFF"):
        pixels, notes = decode(encode(rgba, kind))
        np.testing.assert_array_equal(pixels, RGB)
        assert notes == ()
    rgba[:12, :, 3] = 0
    pixels, notes = decode(encode(rgba, "PNG"))
    assert (pixels[:12] == 128).all()
    np.testing.assert_array_equal(pixels[12:], RGB[12:])
    assert notes == ("transparent pixels laid over mid grey (128)",)


def test_every_kind_of_transparency_is_seen() -> None:
    grey_alpha = Image.merge("LA", (Image.new("L", (20, 20), 250), Image.new("L", (20, 20), 0)))
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([9, 9, 9, 250, 0, 0])
    key = Image.new("RGB", (20, 20), (7, 8, 9))
    samples = [
        encode(grey_alpha, "PNG"),
        encode(grey_alpha, "TIFF"),
        encode(palette, "PNG", transparency=1),
        encode(palette, "GIF", transparency=1),
        plain_tiff(16, (8, 8), bytes(512), t338=(1,)),  # grey, multiplied by alpha
        encode(key, "PNG", transparency=(7, 8, 9)),
        encode(Image.new("RGBA", (20, 20), (1, 2, 3, 0)), "WEBP", lossless=True, exact=True),
    ]
    for data in samples:
        pixels, notes = decode(data)
        assert (pixels == 128).all()
        assert notes == ("transparent pixels laid over mid grey (128)",)


def test_16_bit_grey_with_a_transparent_value_is_refused() -> None:
    rows = b"".join(b"\0" + bytes(32) for _ in range(16))
    data = png(16, 16, 16, 0, rows, png_chunk(b"tRNS", b"\0\0"))
    refused(data, "16-bit with a transparent value; save it without transparency")


def test_cmyk_ycbcr_and_lab_are_converted_with_a_note() -> None:
    red = Image.new("RGB", (32, 32), (220, 30, 20))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    cases = [
        (encode(red.convert("CMYK"), "JPEG", quality=95), "CMYK converted to RGB without a colour profile"),
        (encode(red.convert("CMYK"), "TIFF"), "CMYK converted to RGB without a colour profile"),
        (encode(red.convert("YCbCr"), "TIFF"), "YCbCr converted to RGB without a colour profile"),
        (encode(lab, "TIFF"), "LAB converted to sRGB"),
    ]
    for data, note in cases:
        pixels, notes = decode(data)
        assert np.abs(pixels.astype(int) - (220, 30, 20)).max() <= 4
        assert notes == (note,)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind: str, orientation: int) -> None:
    shown = np.zeros((32, 48, 3), np.uint8)
    shown[:16, :16] = 255  # white in the upper left, once upright
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions, inverse to each orientation
    stored = Image.fromarray(shown)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, notes = decode(encode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    assert pixels.shape == (32, 48, 3)
    assert np.abs(pixels.astype(int) - shown).mean() < 1
    assert notes == (() if orientation == 1 else (f"turned upright (orientation {orientation})",))


def test_the_extension_only_earns_a_note() -> None:
    data = encode(RGB, "PNG")
    assert decode(data, ".jpg")[1] == ("extension .jpg, content is PNG",)
    assert decode(data, ".Png")[1] == decode(data)[1] == ()
    assert decode(encode(GREY16, "PNG"), ".bmp")[1] == (
        "extension .bmp, content is PNG",
        "16-bit, shown as value / 257",
    )
    assert decode(data, ".j\x1b\u202epg")[1] == ("extension .j\\x1b\\u202epg, content is PNG",)


# -- Refusals -------------------------------------------------------------------------------------------


def refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, ".png")
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "file is empty"),
        (bytes(5000), "not an image: nothing but zero bytes; copy the file again"),
        (b"not an image at all\n", "not an image: text content"),
        ("Prüfling nicht aufgenommen ".encode() * 100, "not an image: text content"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image: text content"),
        (b"\x80\xff", "not an image: unknown content"),
        (b"\x80\x01\xfe" * 50, "not an image: unknown content"),
        (b"%PDF-1.7 \xff", "unsupported format (PDF document); save it as PNG, TIFF or JPEG"),
        (b"PK\x03\x04....", "unsupported format (ZIP archive); save it as PNG, TIFF or JPEG"),
        (b"\0\0\0\x1cftypavif", "unsupported format (HEIF or AVIF image, or video); save it as PNG, TIFF or JPEG"),
        (bytes(128) + b"DICM\x02", "unsupported format (DICOM file); save it as PNG, TIFF or JPEG"),
        (
            b"\x89PNG\r\n\x1a\n",
            "PNG with an unreadable header: damaged, truncated, or of an unsupported pixel type",
        ),
    ],
)
def test_what_is_no_image_is_refused_by_name(data: bytes, reason: str) -> None:
    refused(data, reason)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "TIFF lzw", "BMP", "GIF", "PPM", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_even_in_a_lenient_process(kind: str, share: float) -> None:
    data = encode(RGB, kind.split()[0], **LOSSLESS.get(kind, {}))
    with pytest.raises(UnreadableImageError, match=rf"truncated|^damaged {kind[:4]}"):
        decode(data[: int(len(data) * share)])


def test_a_jpeg_that_lost_its_tail_to_zeros_is_refused() -> None:
    thumbnail = b"\xff\xe1\x00\x0aEXIF\xff\xd9.."  # its end marker must not pass for the picture's
    data = encode(RGB, "JPEG")
    data = data[:2] + thumbnail + data[2:]
    assert decode(data)[0].shape == RGB.shape
    refused(data[: len(data) // 2] + bytes(len(data) // 2), "truncated JPEG: its end marker is missing; copy it again")


def test_a_png_with_one_flipped_pixel_byte_is_refused() -> None:
    data = bytearray(encode(RGB, "PNG", compress_level=0))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableImageError, match=r"^damaged PNG: .*checksum"):
        decode(bytes(data))


def test_missing_strips_are_refused() -> None:
    whole = plain_tiff(16, (8,), bytes(256), t278=(8,), t273=(0, 128), t279=(128, 128))
    assert decode(whole)[0].shape == (16, 16, 3)
    half = plain_tiff(16, (8,), bytes(256), t278=(8,), t273=(0,), t279=(128,))
    refused(half, "truncated TIFF: strips or tiles are missing; copy it again")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (plain_tiff(16, (16,), bytes(512), t339=(2,)), "TIFF with signed values; save it as unsigned 8-bit or 16-bit"),
        (plain_tiff(16, (8,), bytes(256), t339=(2,)), "TIFF with signed values; save it as unsigned 8-bit or 16-bit"),
        (
            plain_tiff(16, (16,), bytes(512), t262=(0,)),
            "TIFF of over 8 bits in which zero is white; save it with zero as black",
        ),
        (
            plain_tiff(16, (32,), bytes(1024)),
            "32-bit integers have no fixed full scale; save it as 8-bit or 16-bit",
        ),
        (
            plain_tiff(16, (16,) * 3, bytes(1536), t262=(2,), t284=(2,), t273=(0, 512, 1024), t279=(512,) * 3),
            "TIFF with separate planes of over 8 bits; save it with interleaved colours",
        ),
        (
            plain_tiff(16, (64,), bytes(2048), t339=(3,)),
            "TIFF with an unreadable header: damaged, truncated, or of an unsupported pixel type",
        ),
    ],
)
def test_tiffs_that_would_be_misread_are_refused(data: bytes, reason: str) -> None:
    refused(data, reason)


def test_separate_planes_of_8_bits_are_read() -> None:
    body = b"".join(RGB[:16, :16, c].tobytes() for c in range(3))
    data = plain_tiff(16, (8,) * 3, body, t262=(2,), t284=(2,), t273=(0, 256, 512), t279=(256,) * 3)
    np.testing.assert_array_equal(decode(data)[0], RGB[:16, :16])
    data = plain_tiff(16, (8,) * 3, body, t262=(2,), t284=(2,), t273=(0, 256), t279=(256,) * 2)
    refused(data, "truncated TIFF: strips or tiles are missing; copy it again")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "MPO"])
def test_several_frames_are_refused_with_their_number(kind: str) -> None:
    frames = [Image.fromarray(np.roll(RGB, shift, axis=0)) for shift in range(3)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    refused(data, "3 frames or pages, expected one; save each as a file of its own")


def test_one_frame_is_one_picture_in_every_container() -> None:
    for kind in ("GIF", "TIFF", "PNG", "WEBP", "MPO"):
        assert decode(encode(RGB, kind, save_all=True))[0].shape == RGB.shape


def test_a_preview_inside_a_jpeg_is_left_out_with_a_note() -> None:
    big, small = Image.fromarray(RGB), Image.fromarray(RGB[:16, :16])
    data = encode(big, "MPO", save_all=True, append_images=[small])
    at = data.index(b"MPF\0") + 4 + 50 + 16  # the second entry of the index of pictures
    assert data[at - 16 : at].startswith(struct.pack("<I", 0x030000))
    data = data[:at] + struct.pack("<I", 0x010001) + data[at + 4 :]
    pixels, notes = decode(data)
    assert pixels.shape == RGB.shape
    assert notes == ("embedded previews left out",)


@pytest.mark.parametrize(("pages", "count"), [(100, "100"), (101, "more than 100"), (5000, "more than 100")])
def test_endless_pages_are_not_counted_to_the_end(pages: int, count: str) -> None:
    page = struct.pack("<H", 4) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 16), (257, 16), (262, 1), (273, 8))
    )
    starts = [8 + (len(page) + 4) * i for i in range(1, pages)]
    data = b"II*\0" + struct.pack("<I", 8) + b"".join(page + struct.pack("<I", start) for start in (*starts, 0))
    refused(data, f"{count} frames or pages, expected one; save each as a file of its own")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 400), (400, 15)])
def test_tiny_images_are_refused(height: int, width: int) -> None:
    data = encode(np.zeros((height, width, 3), np.uint8), "PNG")
    refused(data, f"{width} x {height} px: smaller than 16 px a side")


def test_16_px_are_enough() -> None:
    assert decode(encode(np.zeros((16, 16, 3), np.uint8), "PNG"))[0].shape == (16, 16, 3)


def test_bombs_are_refused_by_their_header() -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 10_001, 10_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(100)))
    refused(bomb, "10001 x 10000 px: over the limit of 100 megapixels")
    refused(b"P6 60000 60000 255\n" + bytes(100), "over the limit of 100 megapixels")
    canvas = (16_000 - 1).to_bytes(3, "little") * 2
    webp = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    refused(b"RIFF" + struct.pack("<I", len(webp)) + webp, "over the limit of 100 megapixels")


def test_another_limit_in_the_process_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(RGB, "PNG"))[0].shape == RGB.shape
    assert Image.MAX_IMAGE_PIXELS == 10


def test_the_warning_filters_of_the_process_change_no_reason() -> None:
    data = encode(RGB, "TIFF", compression="tiff_lzw")[:-3]  # Pillow warns of a directory that is cut off
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(data, "TIFF with an unreadable header: damaged, truncated, or of an unsupported pixel type")


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), KeyError("x"), ValueError("two\nlines \x1b[0m")]
)
def test_any_exception_of_pillow_becomes_one_clean_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(UnreadableImageError) as caught:
        decode(encode(RGB, "PNG"))
    assert str(caught.value).isprintable()


def test_running_out_of_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    refused(encode(RGB, "PNG"), "not enough memory to decode this PNG")


# -- Pillow's switches ----------------------------------------------------------------------------------


def test_the_switches_of_the_process_are_put_back_also_after_an_error() -> None:
    filters = list(warnings.filters)
    decode(encode(RGB, "PNG"))
    refused(b"", "file is empty")
    with pytest.raises(UnreadableImageError):
        decode(encode(RGB, "PNG")[:300])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS is None
    assert list(warnings.filters) == filters


def test_the_switches_hold_while_another_thread_still_decodes() -> None:
    with decoding._strict_pillow:
        inner = threading.Thread(target=decode, args=(encode(RGB, "PNG"),))
        inner.start()
        inner.join()
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_switch_thrown_while_decoding_makes_it_decode_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Iterator[bool] = iter([True, False])
    transpose = ImageOps.exif_transpose

    def disturb(image: Image.Image, **options: Any) -> None:
        ImageFile.LOAD_TRUNCATED_IMAGES = next(calls)
        transpose(image, **options)

    monkeypatch.setattr(ImageOps, "exif_transpose", disturb)
    np.testing.assert_array_equal(decode(encode(RGB, "PNG"))[0], RGB)
    assert next(calls, None) is None


# -- Any damage at all ----------------------------------------------------------------------------------

SEEDS = [
    encode(RGB, "PNG"),
    encode(RGB, "JPEG"),
    encode(RGB, "JPEG", progressive=True),
    encode(RGB, "TIFF"),
    encode(RGB, "TIFF", compression="tiff_lzw"),
    encode(RGB, "TIFF", compression="jpeg"),
    encode(GREY16, "TIFF"),
    encode(RGB, "BMP"),
    encode(RGB, "GIF"),
    encode(RGB, "WEBP"),
    encode(RGB, "PPM"),
]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_damage_lets_anything_but_the_documented_error_out(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    # Headers are where damage is most inventive
    place = st.one_of(st.integers(0, 200), st.integers(0, len(damaged) - 1))
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=6)):
        damaged[at] = value
    cut = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    try:
        pixels, notes = decode(bytes(damaged[:cut]))
    except UnreadableImageError as error:
        assert str(error).isprintable()
        assert "0x" not in str(error)  # no address: the same file must always give the same reason
        assert len(str(error)) < 160
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        assert min(pixels.shape[:2]) >= 16
        assert all(note.isprintable() for note in notes)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"GIF89a", b"BM"])
)
def test_no_garbage_is_ever_an_image(tail: bytes, head: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        decode(head + tail)
