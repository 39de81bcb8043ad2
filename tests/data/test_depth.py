"""12-bit, 32-bit and float pictures: what the range says, and a word where nothing is left."""

import ast
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import DataConfig
from megdet_hvd.data.__main__ import main
from megdet_hvd.data.depth import all_but_black
from megdet_hvd.data.factory import open_validation
from megdet_hvd.data.loader import eval_batches
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.engine.dark import DarkPictures
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.predictor import as_picture

from .made import box, image, write_set

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
"""What every file below shows, if it is read as it was meant."""


def written(folder: Path, values: Any, name: str = "deep.tif") -> Path:
    Image.fromarray(np.ascontiguousarray(values)).save(folder / name)
    return folder / name


def grey(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    assert pixels.dtype == np.uint8 and (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        (RAMP.astype(np.uint16) * 257, "auto"),
        (RAMP.astype(np.uint16) * 256, "auto"),
        (RAMP.astype(np.int32), "auto"),  # as torchvision has it; OpenCV reads 32 bits as 16
        (RAMP.astype(np.int32) * 257, "auto"),
        (RAMP.astype(np.float32) / 255, "auto"),
        (RAMP.astype(np.float32), "auto"),
        (RAMP.astype(np.uint16) * 16, (0.0, 4080.0)),
        (RAMP.astype(np.uint16), (0.0, 255.0)),
        (RAMP.astype(np.int32) - 1000, (-1000.0, -745.0)),
        (RAMP.astype(np.float32) / 51 - 2, (-2.0, 3.0)),
    ],
)
def test_every_depth_shows_the_same(tmp_path: Path, values: Any, value_range: Any) -> None:
    picture = decode(written(tmp_path, values), (16, 16), value_range)
    assert (grey(picture) == RAMP).all()
    assert all_but_black(picture) is None


def test_twelve_bits_in_sixteen_are_told_of(tmp_path: Path) -> None:
    file = written(tmp_path, RAMP.astype(np.uint16) * 8)  # up to 2040 of 65535
    picture = decode(file)
    assert grey(picture).max() == 7
    assert all_but_black(picture) == ", where 2040 is the brightest value"
    night = Image.new("RGB", (4, 4), (3, 3, 3))
    night.save(tmp_path / "night.png")
    assert all_but_black(decode(tmp_path / "night.png")) is None, "8 bits are what they are"
    outside = decode(file, None, (1000.0, 1400.0))
    assert grey(outside).min() == 0 and grey(outside).max() == 255, "clipped to the range"


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.float32) * 16,
        RAMP.astype(np.float32) / 255 - 0.5,
        RAMP.astype(np.int32) - 100,
        RAMP.astype(np.int32) * 1000,
    ],
)
def test_values_that_fit_no_range_are_no_black_picture(tmp_path: Path, values: Any) -> None:
    file = written(tmp_path, values)
    with pytest.raises(UnreadablePicture, match=r"run from .* data\.value_range=\["):
        decode(file)
    with pytest.raises(UserError, match=r"data\.value_range=\["):
        as_picture(Image.fromarray(np.ascontiguousarray(values)))


def test_what_is_no_number_is_black(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32) / 255
    values[0, :3] = [np.nan, np.inf, -np.inf]
    found = grey(decode(written(tmp_path, values)))
    assert found[0, :3].tolist() == [0, 0, 0] and (found[1:] == RAMP[1:]).all()
    nothing = decode(written(tmp_path, np.full((4, 4), np.nan, np.float32)))
    assert all_but_black(nothing) is not None


def test_sixteen_bit_colours_take_no_range(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    row = b"\0" + np.full(12, 4000, ">u2").tobytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(row * 4))
    file = tmp_path / "deep.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    assert all_but_black(decode(file)) is not None
    with pytest.raises(UnreadablePicture, match="16-bit colours"):
        decode(file, None, (0.0, 4095.0))


def test_the_setting_reaches_training_evaluation_and_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = write_set(tmp_path, [image(1, width=16, height=16)], [box(1, 1, [1, 2, 10, 8])])
    [file] = (tmp_path / "pictures").iterdir()
    buffer = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint16) * 16).save(buffer, "PNG")
    file.write_bytes(buffer.getvalue())
    common: dict[str, Any] = {
        "kind": "coco",
        "train": (source,),
        "val": (source,),
        "min_sizes": (32,),
    }

    def brightest(**more: Any) -> tuple[int, tuple[str, ...]]:
        config = DataConfig(**common, max_size=32, workers=0, **more)
        index = open_validation(config, is_main=True, wait=lambda: None)
        [batch] = eval_batches(index, config, [0], 1)
        return int(batch.images.max()), batch.dark

    value, dark = brightest()
    assert value == 15 and len(dark) == 1 and "4080" in dark[0]
    value, dark = brightest(value_range=(0, 4080))
    assert value == 255 and dark == ()

    words = ["check", source.annotations, "--images", source.images]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "1 of 1 pictures come out all but black" in said and "data.value_range=[0,4095]" in said
    assert main([*words, "--value-range", "0", "4095"]) == 0
    assert main([*words, "--value-range", "4095", "0"]) == 2

    logger = logging.getLogger("megdet_hvd")
    logger.propagate = True
    counted = DarkPictures()
    counted.count(1, 20, ("a.png",))
    assert caplog.text == "", "one dark frame among many is nothing to tell of"
    counted.count(2, 4, ("b.png", "c.png"))
    counted.count(3, 4, ("d.png",))
    assert caplog.text.count("3 of 24 pictures come out all but black, the first: b.png") == 1


def test_a_range_must_be_one() -> None:
    for wrong in ("[4095,0]", "[1,1]"):
        with pytest.raises(UserError, match=r"data\.value_range.*black"):
            load_config(None, [f"data.value_range={wrong}"])
    assert load_config(None, ["data.value_range=[0,4095]"]).data.value_range == (0, 4095)


def test_no_picture_is_read_without_the_setting() -> None:
    """Who decodes pictures of a data set says which range they have."""
    package = Path(__file__).parents[2] / "megdet_hvd"
    asked = 0
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "decode",
                "decode_pixels",
            ):
                asked += 1
                said = any(keyword.arg == "value_range" for keyword in node.keywords)
                assert said or len(node.args) == 3, f"{file}:{node.lineno}"
    assert asked >= 6
