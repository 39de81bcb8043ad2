"""Other rules than linear scaling, and batches above 256, against lists worked out by hand."""

import math
import random

import pytest

from megdet_hvd.schedule.large_batch import lengthened_warmup_iterations
from megdet_hvd.schedule.scaling import Scaling, scaled_rate, sqrt_scaled_rate
from megdet_hvd.schedule.warmup import warmup_iterations_for


@pytest.mark.parametrize(
    ("rule", "rates"),
    [
        ("linear", [0.005, 0.02, 0.08, 0.32, 1.28]),
        ("sqrt", [0.01, 0.02, 0.04, 0.08, 0.16]),
        ("none", [0.02, 0.02, 0.02, 0.02, 0.02]),
    ],
)
def test_rates_of_batches_4_to_1024(rule: Scaling, rates: list[float]) -> None:
    assert [scaled_rate(rule, 0.02, 16, batch) for batch in (4, 16, 64, 256, 1024)] == rates


def test_the_root_is_rounded_once() -> None:
    assert sqrt_scaled_rate(0.02, 16, 32) == 0.0282842712474619
    draw = random.Random(0)
    for _ in range(200):
        rate, base, batch = draw.random(), draw.randrange(1, 300), draw.randrange(1, 3000)
        found = sqrt_scaled_rate(rate, base, batch)
        assert math.isclose(found, rate * math.sqrt(batch / base), rel_tol=4e-16)


def test_a_single_step_keeps_its_deviation_under_square_root_scaling() -> None:
    sigma = 1.7
    for k in (1, 4, 9, 16):
        small = 0.02 * sigma / math.sqrt(16)
        large = sqrt_scaled_rate(0.02, 16, 16 * k) * sigma / math.sqrt(16 * k)
        assert large == pytest.approx(small, rel=1e-15)


@pytest.mark.parametrize(
    ("batch", "end", "iterations"),
    [
        (257, 5063, 502),  # 500 · 257/256 = 501.95
        (320, 4067, 625),
        (512, 2542, 508),  # 1000, but 2542/5 = 508.4: 2.2 of 11 epochs
        (512, 4159, 831),  # long: 3.6 of 18 epochs
        (1024, 1271, 254),
        (1024, 50_000, 2000),
        (512, 4, 0),
    ],
)
def test_warmup_grows_with_the_batch(batch: int, end: int, iterations: int) -> None:
    assert lengthened_warmup_iterations(batch, end) == iterations


@pytest.mark.parametrize(
    ("images", "batch", "iterations"),
    [
        (0, 16, 0),
        (1, 16, 1),
        (16, 16, 1),
        (17, 16, 2),
        (128_000, 256, 500),
        (10**18 + 1, 1, 10**18 + 1),
    ],
)
def test_warmup_in_pictures(images: int, batch: int, iterations: int) -> None:
    assert warmup_iterations_for(images, batch) == iterations
