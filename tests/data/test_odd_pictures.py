"""Broken EXIF blocks, pictures above Pillow's limit, and files that are none."""

import os
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.data import large
from megdet_hvd.data.large import any_size
from megdet_hvd.data.picture_size import picture_size, picture_sizes
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.evaluation.predictor import as_picture

TOP, BOTTOM = (200, 30, 30), (30, 30, 200)


def with_exif(folder: Path, *tags: tuple[int, int, int, bytes]) -> Path:
    """A picture, 64 wide and 32 high, with an EXIF block of (tag, type, count, value)."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16], pixels[16:] = TOP, BOTTOM
    entries = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3].ljust(4, b"\0") for tag in tags)
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    file = folder / "camera.jpg"
    Image.fromarray(pixels).save(file, exif=b"Exif\0\0" + block, quality=95)
    return file


ORIENTATION_6 = (0x0112, 3, 1, b"\x06\0")
BROKEN = {
    "a rational with no room": (0x011A, 5, 1, b"\xff\xff\xff\x7f"),
    "text typed as a number": (0x010F, 4, 1, b"abcd"),
    "a width of text": (0x0100, 2, 3, b"ab\0"),
    "a unit too large for its type": (0x0128, 4, 1, b"\xff\xff\xff\xff"),
    "a negative rational": (0x011A, 10, 1, b"\x1a\0\0\0"),
    "an unknown type": (0x0131, 99, 1, b"\0\0"),
    "a wrong count": (0x0128, 3, 2**31, b"\x02\0"),
    "a folder that is elsewhere": (0x8769, 4, 1, b"\xf0\xff\0\0"),
}


@pytest.mark.parametrize("tag", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_tag_costs_neither_picture_nor_orientation(
    tmp_path: Path, tag: tuple[int, int, int, bytes]
) -> None:
    file = with_exif(tmp_path, *sorted([ORIENTATION_6, tag]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of a corrupt block
        picture = decode(file, (32, 64))
        assert picture.size == (32, 64)
        pixels = np.asarray(picture).astype(int)
        assert abs(pixels[30, 28] - TOP).max() < 12 and abs(pixels[30, 4] - BOTTOM).max() < 12
        assert decode(file, (64, 32)).size == (64, 32), "annotated as stored"
        with Image.open(file) as opened:
            assert as_picture(opened).size == (32, 64)


@pytest.mark.parametrize(
    "orientation",
    [(0x0112, 2, 4, b"six\0"), (0x0112, 3, 1, b"\x63\0"), (0x0112, 7, 2, b"\x63\x63")],
)
def test_an_orientation_that_means_nothing_leaves_the_picture_as_stored(
    tmp_path: Path, orientation: tuple[int, int, int, bytes]
) -> None:
    assert decode(with_exif(tmp_path, orientation), (64, 32)).size == (64, 32)


def test_large_pictures_are_read_without_a_word_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "large.png"
    Image.new("1", (300, 200)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # Pillow refuses twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(file, (300, 200)).size == (300, 200)
    assert Image.MAX_IMAGE_PIXELS == 10_000, "the caller's limit is the caller's"
    monkeypatch.setattr(large, "MAX_PIXELS", 59_999)
    with pytest.raises(UnreadablePicture, match=r"300×200 = 0 megapixels.*tiles"):
        decode(file)
    with pytest.raises(Image.DecompressionBombError), Image.open(file):
        pass


def test_the_limit_comes_back_after_the_last_of_many_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 77)
    entered, leave = threading.Barrier(3), threading.Event()

    def hold() -> None:
        with any_size():
            entered.wait(10)
            leave.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    entered.wait(10)
    with any_size():
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS is None, "two are still at it"
    leave.set()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 77


def test_a_pipe_is_no_picture_and_nobody_waits_at_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jpg")
    with pytest.raises(UnreadablePicture, match="a pipe"):
        decode(tmp_path / "p.jpg")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("held", range(1, 9))
def test_every_orientation_is_measured_and_decoded_alike(
    tmp_path: Path, name: str, held: int
) -> None:
    stored = (
        np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    file = tmp_path / "picture"
    exif = Image.Exif()
    exif[0x0112] = held
    more = {"tiffinfo": {0x0112: held}} if name == "TIFF" else {"exif": exif}
    Image.fromarray(stored).save(file, name, **more)
    upright = (24, 32) if held > 4 else (32, 24)
    assert picture_size(file) == decode(file).size == upright
    assert picture_sizes(file) == (upright, (32, 24))
    assert decode(file, upright).size == upright
    as_stored = decode(file, (32, 24))
    assert as_stored.size == (32, 24)
    if held > 4 and name in ("PNG", "TIFF"):
        assert np.array_equal(np.asarray(as_stored), stored)


def test_the_size_of_a_large_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = tmp_path / "large.png"
    Image.new("RGB", (40, 30)).save(file)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)
    assert picture_size(file) == (40, 30)
