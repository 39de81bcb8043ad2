"""Decoding, resizing and drawing, against pictures made by hand and literal sizes."""

import io
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.data.transforms import (
    UnreadablePicture,
    decode,
    draw_augmentation,
    flip_boxes,
    resized_size,
    scale_boxes,
)

# Four flat quarters: red, green / blue, white. 16 pixels each, so that JPEG keeps them flat.
QUARTERS = np.zeros((32, 64, 3), np.uint8)
QUARTERS[:16, :32] = (200, 30, 30)
QUARTERS[:16, 32:] = (30, 200, 30)
QUARTERS[16:, :32] = (30, 30, 200)
QUARTERS[16:, 32:] = (230, 230, 230)


def corners(picture: Image.Image) -> list[tuple[int, ...]]:
    """Colours in the middles of the four quarters, in reading order."""
    pixels = np.asarray(picture).astype(int)
    h, w = pixels.shape[:2]
    return [tuple(pixels[y, x]) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def near(a: list[tuple[int, ...]], b: list[tuple[int, ...]], within: int = 8) -> bool:
    return bool(np.abs(np.asarray(a) - np.asarray(b)).max() <= within)


RED, GREEN, BLUE, WHITE = corners(Image.fromarray(QUARTERS))
GREYS = [tuple([round(0.299 * r + 0.587 * g + 0.114 * b)] * 3) for r, g, b in (
    RED, GREEN, BLUE, WHITE)]  # fmt: skip


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_plain_and_grey(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a picture"
    Image.fromarray(QUARTERS).save(file, kind)
    picture = decode(file, (64, 32))
    assert picture.mode == "RGB"
    assert near(corners(picture), [RED, GREEN, BLUE, WHITE])
    Image.fromarray(QUARTERS).convert("L").save(file, kind)
    picture = decode(file)
    assert picture.mode == "RGB"
    assert near(corners(picture), GREYS)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.fromarray(QUARTERS).convert("CMYK").save(tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as stored:
        assert stored.mode == "CMYK"
    assert near(corners(decode(tmp_path / "x.jpg")), [RED, GREEN, BLUE, WHITE], 12)


def test_palette_alpha_and_bilevel(tmp_path: Path) -> None:
    rgb = Image.fromarray(QUARTERS)
    rgb.quantize(8).save(tmp_path / "p.png")
    assert near(corners(decode(tmp_path / "p.png")), [RED, GREEN, BLUE, WHITE])
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.new("L", rgb.size, 40))
    rgba.save(tmp_path / "a.png")
    assert corners(decode(tmp_path / "a.png")) == [RED, GREEN, BLUE, WHITE]
    rgb.convert("LA").save(tmp_path / "la.png")
    assert near(corners(decode(tmp_path / "la.png")), GREYS)
    rgb.quantize(8).save(tmp_path / "pt.png", transparency=0)
    assert near(corners(decode(tmp_path / "pt.png")), [RED, GREEN, BLUE, WHITE])
    Image.fromarray(QUARTERS[..., 0] > 100).save(tmp_path / "1.png")
    assert corners(decode(tmp_path / "1.png")) == [(255,) * 3, (0,) * 3, (0,) * 3, (255,) * 3]


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    values = np.asarray([[0, 255, 256, 32768], [65535, 12345, 511, 512]], np.uint16)
    # Written by hand, not by Pillow: 16-bit grey, big-endian, filter 0 in each row.
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 0, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    pixels = np.asarray(decode(tmp_path / "deep.png"))
    assert pixels[..., 0].tolist() == [[0, 0, 1, 128], [255, 48, 1, 2]]
    assert (pixels == pixels[..., :1]).all()


# What a viewer must see when the camera wrote each orientation; the stored pixels are QUARTERS.
UPRIGHT = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],
    3: [WHITE, BLUE, GREEN, RED],
    4: [BLUE, WHITE, RED, GREEN],
    5: [RED, BLUE, GREEN, WHITE],
    6: [BLUE, RED, WHITE, GREEN],
    7: [WHITE, GREEN, BLUE, RED],
    8: [GREEN, WHITE, RED, BLUE],
}


@pytest.mark.parametrize("orientation", list(UPRIGHT))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "camera.jpg"
    Image.fromarray(QUARTERS).save(file, exif=exif, quality=95)
    turned = orientation >= 5
    size = (32, 64) if turned else (64, 32)
    picture = decode(file, size)
    assert picture.size == size
    assert near(corners(picture), UPRIGHT[orientation])
    if turned:  # annotated on the stored pixels: then the boxes lie on those
        assert near(corners(decode(file, (64, 32))), UPRIGHT[1])
    with pytest.raises(UnreadablePicture, match="annotated as 64×64"):
        decode(file, (64, 64))


@pytest.mark.parametrize("cut", ["empty", "text", "truncated", "folder", "missing", "bad png"])
def test_unreadable(tmp_path: Path, cut: str) -> None:
    file = tmp_path / "broken.jpg"
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG" if cut == "bad png" else "JPEG")
    data = buffer.getvalue()
    if cut == "folder":
        file.mkdir()
    elif cut == "bad png":
        file.write_bytes(data[:200] + bytes(200) + data[400:])
    elif cut != "missing":
        file.write_bytes({"empty": b"", "text": b"<html>", "truncated": data[:900]}[cut])
    with pytest.raises(UnreadablePicture):
        decode(file)


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((640, 480), (800, 1333), (1067, 800)),
        ((480, 640), (800, 1333), (800, 1067)),
        ((640, 427), (800, 1333), (1199, 800)),
        ((640, 360), (800, 1333), (1333, 750)),
        ((1000, 200), (800, 1333), (1333, 267)),
        ((500, 500), (800, 1333), (800, 800)),
        ((800, 1200), (800, 1333), (800, 1200)),
        ((3000, 4000), (800, 1333), (800, 1067)),
        ((5000, 1), (800, 1333), (1333, 1)),
        ((160, 120), (120, 200), (160, 120)),
    ],
)
def test_resized_size(
    size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_size(*size, *limits) == expected


def test_boxes_follow() -> None:
    boxes = np.asarray([[0, 0, 64, 32], [16, 8, 32, 24]], np.float32)
    scaled = scale_boxes(boxes, (64, 32), (96, 16))
    assert scaled.tolist() == [[0, 0, 96, 16], [24, 4, 48, 12]]
    assert flip_boxes(scaled, 96).tolist() == [[0, 0, 96, 16], [48, 4, 72, 12]]


def test_draws_belong_to_the_picture() -> None:
    def draw(seed: int, epoch: int, source: int, number: int) -> tuple[int, bool]:
        made = draw_augmentation(
            seed, epoch, source, number, min_sizes=(1, 2, 3, 4), flip_probability=0.25
        )
        return made.min_size, made.flip

    assert draw(1, 2, 3, 4) == draw(1, 2, 3, 4)
    many = [draw(0, epoch, 0, number) for epoch in range(8) for number in range(500)]
    sizes = Counter(size for size, _ in many)
    assert all(abs(count - 1000) < 130 for count in sizes.values())  # 4.7 standard deviations
    assert abs(sum(flip for _, flip in many) - 1000) < 130
    both = sum(flip for size, flip in many if size == 1)
    assert abs(both - 250) < 70  # size and flip are independent
    for other in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        assert [draw(*other, k) for k in range(40)] != [draw(0, 0, 0, k) for k in range(40)]
    always, never = (
        [draw_augmentation(0, 0, 0, k, min_sizes=(5,), flip_probability=p) for k in range(50)]
        for p in (1.0, 0.0)
    )
    assert all(a.flip for a in always)
    assert not any(a.flip for a in never)
