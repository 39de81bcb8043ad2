"""JPEG files decoded without Pillow: the same pixels and errors, or Pillow decodes them."""

import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.data import jpeg
from megdet_hvd.data.transforms import UnreadablePicture, decode, decode_pixels
from tests.data.made import real_data

KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1, "optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The size of each file that was decoded without Pillow."""
    pytest.importorskip("simplejpeg", reason="not checked: decoding by simplejpeg; make setup")
    without_pillow = jpeg.decoder()
    assert without_pillow is not None, "its values are not Pillow's here"
    sizes: list[int] = []

    def counted(content: bytes) -> jpeg.Pixels:
        pixels = without_pillow(content)
        sizes.append(len(content))
        return pixels

    monkeypatch.setattr(jpeg, "decoder", lambda: counted)
    yield sizes


@pytest.fixture
def other_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Puts another library, or none, in simplejpeg's place."""

    def put(library: Any) -> None:
        monkeypatch.setitem(sys.modules, "simplejpeg", library)
        jpeg.decoder.cache_clear()

    yield put
    jpeg.decoder.cache_clear()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(width).normal(128, 60, (height, width, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert(mode)


def encoded(picture: Image.Image, **how: Any) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", quality=80, **how)
    return file.getvalue()


def outcome(load: Callable[[Path], Any], file: Path) -> str | bytes:
    """Pixels or error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of a broken EXIF block
        try:
            return np.asarray(load(file)).tobytes()
        except UnreadablePicture as error:
            return str(error)


def pixels(file: Path) -> jpeg.Pixels:
    return decode_pixels(file)[0]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_usual_files_have_pillows_pixels(
    tmp_path: Path, decoded: list[int], mode: str, kind: str
) -> None:
    sizes = [(1, 1), (7, 200), (113, 79), (640, 16)]
    for size in sizes:
        file = tmp_path / "a.png"  # whatever its name says
        file.write_bytes(encoded(noise(*size, mode), **KINDS[kind]))
        found, black = decode_pixels(file, size)
        assert black is None and found.dtype == np.uint8 and found.flags.writeable
        assert np.array_equal(found, np.asarray(decode(file, size)))
    assert len(decoded) == len(sizes)


def test_real_pictures_have_pillows_pixels(decoded: list[int]) -> None:
    folder = real_data("coco_tiny", "that photographs have the same pixels over both decoders")
    files = sorted((folder / "train2017").glob("*.jpg"))
    for file in files:
        assert outcome(pixels, file) == outcome(decode, file)
    assert len(decoded) == len(files) > 0


def test_all_else_goes_pillows_way(tmp_path: Path, decoded: list[int]) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    picture, file = noise(40, 30), tmp_path / "a.jpg"
    deep = Image.fromarray(np.full((30, 40), 900, np.uint16))
    for how in ({"format": "PNG"}, {"format": "JPEG", "exif": turned}, {"format": "BMP"}):
        picture.save(file, **how)
        assert outcome(pixels, file) == outcome(decode, file)
    picture.convert("CMYK").save(file)
    assert outcome(pixels, file) == outcome(decode, file)
    picture.save(file, format="MPO", save_all=True, append_images=[picture])
    assert outcome(pixels, file) == outcome(decode, file)
    deep.save(file, format="TIFF")
    assert decode_pixels(file)[1] == ", where 900 is the brightest value"
    picture.save(file)
    with pytest.raises(UnreadablePicture, match="40×30 pixels, but annotated as 30×40"):
        decode_pixels(file, (30, 40))
    assert decoded == []


def test_damaged_files_have_pillows_pixels_or_its_error(tmp_path: Path, decoded: list[int]) -> None:
    drawn, file = random.Random(5), tmp_path / "a.jpg"
    whole = [encoded(noise(61, 50, mode), **how) for mode in ("RGB", "L") for how in KINDS.values()]
    errors = 0
    for number in range(400):
        content = bytearray(drawn.choice(whole))
        at = drawn.randrange(len(content))
        match number % 4:
            case 0:
                del content[at:]
            case 1:
                content[at] ^= 1 << drawn.randrange(8)
            case 2:
                content[at : at + 2] = bytes((0xFF, drawn.randrange(0xC0, 0x100)))
            case _:
                del content[at : at + drawn.randrange(1, 9)]
        file.write_bytes(content)
        expected = outcome(decode, file)
        assert outcome(pixels, file) == expected, f"file {number}"
        errors += isinstance(expected, str)
    assert errors > 50 and len(decoded) > 20, "both kinds are among them"


def test_without_the_library_pillow_decodes(
    tmp_path: Path, other_library: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(noise(40, 30)))
    other_library(None)  # as Python notes what is not to be found
    assert jpeg.decoder() is None
    assert outcome(pixels, file) == outcome(decode, file)
    assert not caplog.records


@pytest.mark.parametrize("off", [0, 1])
def test_a_library_with_other_values_is_not_used(
    other_library: Callable[[Any], None], caplog: pytest.LogCaptureFixture, off: int
) -> None:
    def encode_jpeg(values: jpeg.Pixels, **how: Any) -> bytes:
        return encoded(Image.fromarray(values.squeeze()))

    def decode_jpeg(content: bytes, **how: Any) -> jpeg.Pixels:
        with Image.open(BytesIO(content)) as opened:
            found = np.array(opened.convert("RGB"))
        found[-1, -1, -1] ^= off
        return found

    other_library(types.SimpleNamespace(encode_jpeg=encode_jpeg, decode_jpeg=decode_jpeg))
    assert (jpeg.decoder() is None) == bool(off)
    assert [r.getMessage()[:60] for r in caplog.records] == [
        "warning: simplejpeg and Pillow give JPEG files different val"
    ] * off


@pytest.mark.parametrize("wrong", ["444", "422", "420", "440", "411", "Gray"])
def test_each_kind_of_subsampling_is_compared(
    other_library: Callable[[Any], None], wrong: str
) -> None:
    real = pytest.importorskip("simplejpeg", reason="not checked: samples; make setup")
    kinds: list[str] = []

    def encode_jpeg(values: jpeg.Pixels, **how: Any) -> bytes:
        kinds.append(how["colorsubsampling"])
        content: bytes = real.encode_jpeg(values, **how)
        return content

    def decode_jpeg(content: bytes, **how: Any) -> jpeg.Pixels:
        found: jpeg.Pixels = real.decode_jpeg(content, **how)
        found[0, 0, 0] ^= kinds[-1] == wrong
        return found

    other_library(types.SimpleNamespace(encode_jpeg=encode_jpeg, decode_jpeg=decode_jpeg))
    assert jpeg.decoder() is None


def test_pixels_of_another_size_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(noise(40, 30)))
    monkeypatch.setattr(jpeg, "decoder", lambda: lambda content: np.zeros((40, 30, 3), np.uint8))
    assert outcome(pixels, file) == outcome(decode, file)


def of_another_version(content: bytes, colorspace: str = "RGB") -> jpeg.Pixels:
    """Knows no argument ``strict``."""
    raise AssertionError("is never called")


def out_of_order(content: bytes, **how: Any) -> jpeg.Pixels:
    raise RuntimeError("libjpeg: wrong version")


@pytest.mark.parametrize("decode_jpeg", [of_another_version, out_of_order, None])
def test_a_library_that_fails_costs_time_and_no_picture(
    tmp_path: Path,
    other_library: Callable[[Any], None],
    caplog: pytest.LogCaptureFixture,
    decode_jpeg: Any,
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(noise(40, 30)))
    library = types.SimpleNamespace()
    if decode_jpeg is not None:
        library.encode_jpeg = lambda values, **how: encoded(Image.fromarray(values.squeeze()))
        library.decode_jpeg = decode_jpeg
    other_library(library)
    for _ in range(2):
        assert pixels(file).shape == (30, 40, 3)
    (record,) = caplog.records
    assert "simplejpeg can't decode samples of its own (" in record.getMessage()
