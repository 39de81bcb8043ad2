"""Which picture files are opened, whatever they are called."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from megdet_hvd.data.formats import FORMATS, open_picture
from megdet_hvd.data.transforms import UnreadablePicture, decode

PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


@pytest.mark.parametrize("name", [*FORMATS, "MPO"])
def test_each_format_is_read_under_any_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    more = [PICTURE] if name == "MPO" else []
    PICTURE.save(file, name, save_all=bool(more), append_images=more)
    assert open_picture(file).format == name
    assert open_picture(io.BytesIO(file.read_bytes())).size == (4, 4)
    assert decode(file).size == (4, 4)
    with Image.open(file) as theirs:
        assert np.array_equal(np.asarray(decode(file)), np.asarray(theirs.convert("RGB")))


def test_what_starts_another_program_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
    file = tmp_path / "picture.jpg"
    PICTURE.save(file, "EPS")
    with Image.open(file) as theirs:
        assert theirs.format == "EPS"
    with pytest.raises(UnidentifiedImageError, match="one of the formats JPEG, PNG"):
        open_picture(file)
    with pytest.raises(UnreadablePicture, match="one of the formats JPEG"):
        decode(file)
    assert not started


@pytest.mark.parametrize("name", ["ICO", "TGA", "PCX", "SGI", "DDS"])
def test_no_other_format_is_opened(name: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    PICTURE.save(file, name)
    with pytest.raises(UnreadablePicture, match="one of the formats"):
        decode(file)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"\0" * 5000, "zeros only"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "it is AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "it is a video"),
        (b"<!DOCTYPE html><html>403", "a web page"),
        (b'<?xml version="1.0"?><Error>', "a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\0" * 128 + b"DICM", "AVIF$"),
    ],
)
def test_a_file_that_is_something_else_is_told_for_what_it_is(
    tmp_path: Path, content: bytes, told: str
) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(content)
    with pytest.raises(UnreadablePicture, match=told):
        decode(file)
    with pytest.raises(UnidentifiedImageError, match=told):
        open_picture(file)
