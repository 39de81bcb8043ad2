"""torch's resizing of bytes beside Pillow's, which is the reference."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from megdet_hvd.data.resizing import Resizer, as_image, as_pixels, resized, resizer_of
from tests.data.made import real_data

BOTH: tuple[Resizer, ...] = ("torch", "pillow")


def noise(width: int, height: int) -> Tensor:
    """Smooth in the coarse, grainy in the fine, as photographs are."""
    random = np.random.default_rng(width * 1000 + height)
    coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height))
    grain = random.normal(0, 10, (height, width, 3))
    return torch.from_numpy(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).permute(
        2, 0, 1
    )


def levels_apart(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    one, other = (resized(pixels, size, resizer) for resizer in BOTH)
    assert one.shape == other.shape == (3, size[1], size[0]) and one.dtype == torch.uint8
    return (one.int() - other.int()).abs()


@pytest.mark.parametrize("size", [(1067, 800), (431, 300), (90, 77), (640, 20), (3, 500), (1, 1)])
def test_torch_gives_pillows_values_but_for_roundings(size: tuple[int, int]) -> None:
    apart = levels_apart(noise(640, 480), size)
    assert apart.max() <= 2, "levels of 255"
    assert (apart > 0).float().mean() < 0.01


def test_real_pictures_at_the_papers_size_differ_in_few_values_by_one_level() -> None:
    folder = real_data("coco_tiny", "what resizing of real pictures costs") / "train2017"
    for file in sorted(folder.glob("*.jpg"))[:3]:
        with Image.open(file) as opened:
            pixels = as_pixels(opened.convert("RGB"))
        height, width = pixels.shape[1:]
        scale = 800 / min(width, height)
        apart = levels_apart(pixels, (round(width * scale), round(height * scale)))
        assert apart.max() <= 1 and (apart > 0).float().mean() < 0.002


def test_pixels_stay_together_and_their_values_are_those_of_planes() -> None:
    pixels = noise(50, 40)
    for size in ((133, 90), (21, 17), (1, 60), (60, 1), (50, 60)):
        planes = functional.interpolate(
            pixels[None], size=size[::-1], mode="bilinear", align_corners=False, antialias=True
        )
        assert planes.is_contiguous(), "what this project's pictures were made by, at first"
        found = resized(pixels, size, "torch")
        assert torch.equal(found, planes[0])
        if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
            assert found.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("resizer", BOTH)
def test_shrinking_takes_means_and_the_same_size_takes_nothing(resizer: Resizer) -> None:
    checks = torch.zeros(3, 64, 64, dtype=torch.uint8)
    checks[:, ::2, ::2] = checks[:, 1::2, 1::2] = 200
    small = resized(checks, (16, 16), resizer)
    assert (small[:, 2:-2, 2:-2].int() - 100).abs().max() <= 2  # the mean, not one of the two
    assert resized(checks, (64, 64), resizer) is checks


@pytest.mark.parametrize("resizer", BOTH)
def test_how_the_memory_lies_and_a_mirror_change_nothing(resizer: Resizer) -> None:
    pixels = noise(50, 40)
    for size in ((133, 90), (21, 17), (70, 20)):
        expected = resized(pixels, size, resizer)
        assert torch.equal(resized(pixels.contiguous(), size, resizer), expected)
        turned = resized(pixels.transpose(1, 2).contiguous().transpose(1, 2), size, resizer)
        assert torch.equal(turned, expected)


def test_pillows_own_is_what_it_was() -> None:
    picture = Image.fromarray(noise(50, 40).permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((133, 90), Image.Resampling.BILINEAR))
    found = resized(as_pixels(picture), (133, 90), resizer_of("pillow"))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(np.asarray(as_image(found)), expected)
    assert resizer_of("auto") == resizer_of("torch") == "torch"


PROBE = """
import hashlib, torch
from megdet_hvd.data.resizing import resized
values = torch.arange(3 * 90 * 120, dtype=torch.int64).mul_(2654435761) // 65536 % 256
pixels = values.to(torch.uint8).view(3, 90, 120)
found = [resized(pixels, size, "torch").contiguous() for size in ((301, 199), (60, 45), (1, 99))]
digest = hashlib.sha256(b"".join(one.numpy().tobytes() for one in found)).hexdigest()
"""


def test_every_processor_gives_the_same_values() -> None:
    environ = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", f"{PROBE}print(torch.backends.cpu.get_cpu_capability(), digest)"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    here: dict[str, str] = {}
    exec(PROBE, here)
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("not checked: this processor has no vectors for torch to use")
    assert done.stdout.split() == ["DEFAULT", here["digest"]], "without vectors, and with"
