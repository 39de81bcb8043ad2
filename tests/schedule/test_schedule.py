"""The schedule against literal lists, worked out by hand from N = 118287 pictures.

ceil(8·118287/16) = ceil(946296/16) = ceil(59143.5) = 59144, and so on.
"""

import random
from fractions import Fraction

import pytest

from megdet_hvd.schedule.exact import exact
from megdet_hvd.schedule.learning_rate import LearningRateSchedule
from megdet_hvd.schedule.policy import LONG, NORMAL, Drop, milestone_iteration
from megdet_hvd.schedule.scaling import linear_scaled_rate
from megdet_hvd.schedule.warmup import auto_warmup_iterations

COCO_TRAIN2017 = 118287


@pytest.mark.parametrize(
    ("global_batch", "drops", "end"),
    [
        (16, [59144, 73930], 81323),
        (32, [29572, 36965], 40662),
        (64, [14786, 18483], 20331),
        (128, [7393, 9242], 10166),
        (256, [3697, 4621], 5083),
    ],
)
def test_normal_policy_on_coco(global_batch: int, drops: list[int], end: int) -> None:
    found = [milestone_iteration(d.epoch, COCO_TRAIN2017, global_batch) for d in NORMAL.drops]
    assert found == drops
    assert milestone_iteration(NORMAL.end_epoch, COCO_TRAIN2017, global_batch) == end
    assert [d.factor for d in NORMAL.drops] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("global_batch", "drops", "end"),
    [
        (16, [81323, 103502, 125680], 133073),
        (32, [40662, 51751, 62840], 66537),
        (256, [5083, 6469, 7855], 8318),
    ],
)
def test_long_policy_on_coco(global_batch: int, drops: list[int], end: int) -> None:
    found = [milestone_iteration(d.epoch, COCO_TRAIN2017, global_batch) for d in LONG.drops]
    assert found == drops
    assert milestone_iteration(LONG.end_epoch, COCO_TRAIN2017, global_batch) == end
    assert [d.factor for d in LONG.drops] == [0.1, 0.1, 0.5]


@pytest.mark.parametrize(
    ("epoch", "images", "batch", "iteration"),
    [
        (0, 1000, 10, 0),
        (0.1, 1000, 10, 10),  # the binary float 0.1 is above a tenth: a careless ceil says 11
        (0.5, 7, 2, 2),  # 1.75
        (0.3, 10, 3, 1),
        (1.1, 100, 10, 11),
        (2.2, 1000, 1, 2200),
        (3, 7, 7, 3),
        (3, 8, 7, 4),  # 24/7 = 3.43
        (1e-05, 100000, 1, 1),
    ],
)
def test_milestones_take_epochs_as_written(
    epoch: float, images: int, batch: int, iteration: int
) -> None:
    assert milestone_iteration(epoch, images, batch) == iteration


def test_exact_is_the_decimal_that_was_written() -> None:
    assert exact(0.1) == Fraction(1, 10)
    assert exact(1e-4) == Fraction(1, 10000)
    assert exact(8) == 8
    draw = random.Random(0)
    for _ in range(200):
        thousandths = draw.randrange(1, 10**6)
        assert exact(float(f"{thousandths}e-3")) == Fraction(thousandths, 1000)


@pytest.mark.parametrize(
    ("global_batch", "rate"),
    [(1, 0.00125), (8, 0.01), (16, 0.02), (32, 0.04), (64, 0.08), (128, 0.16), (256, 0.32)],
)
def test_linear_scaling(global_batch: int, rate: float) -> None:
    assert linear_scaled_rate(0.02, 16, global_batch) == rate


def test_variance_of_one_large_step_equals_that_of_k_small_ones() -> None:
    """Eq. (2)-(4): the rate that linear scaling gives makes both sides of (4) equal."""
    variance = Fraction(7, 3)
    for k in (1, 2, 16):
        large_rate = exact(linear_scaled_rate(0.02, 16, 16 * k))
        small_steps = exact(0.02) ** 2 * k * variance / 16
        large_step = large_rate**2 * variance / (16 * k)
        assert small_steps == large_step


def test_warmup_rises_by_a_constant_amount_to_exactly_the_peak() -> None:
    schedule = LearningRateSchedule(
        peak_rate=0.32,
        warmup_start_rate=0.02,
        warmup_iterations=5,
        drops=(),
        images_per_epoch=10**6,
        global_batch=256,
    )
    rates = [schedule.rate_at(256 * iteration) for iteration in range(8)]
    assert rates == [0.02, 0.08, 0.14, 0.2, 0.26, 0.32, 0.32, 0.32]


def test_every_rate_of_a_small_run() -> None:
    """N = 10, batch 4: iterations start at 0, 4, 8, 12 … pictures.

    Epoch 1.5 is 15 pictures, so the first lower rate is that of the iteration starting at 16;
    epoch 2 is 20 pictures, exactly the start of iteration 5.
    """
    schedule = LearningRateSchedule(
        peak_rate=0.4,
        warmup_start_rate=0.1,
        warmup_iterations=3,
        drops=(Drop(1.5, 0.1), Drop(2, 0.5)),
        images_per_epoch=10,
        global_batch=4,
    )
    rates = [schedule.rate_at(4 * iteration) for iteration in range(7)]
    assert rates == [0.1, 0.2, 0.3, 0.4, 0.04, 0.02, 0.02]


def test_a_drop_inside_the_warmup_multiplies_too() -> None:
    schedule = LearningRateSchedule(
        peak_rate=0.5,
        warmup_start_rate=0.1,
        warmup_iterations=4,
        drops=(Drop(1, 0.1),),
        images_per_epoch=2,
        global_batch=1,
    )
    rates = [schedule.rate_at(iteration) for iteration in range(6)]
    assert rates == [0.1, 0.2, 0.03, 0.04, 0.05, 0.05]


def test_no_warmup_starts_at_the_peak() -> None:
    schedule = LearningRateSchedule(0.02, 0.001, 0, NORMAL.drops, 160, 16)
    assert [schedule.rate_at(16 * i) for i in (0, 79, 80, 99, 100, 10**6)] == [
        0.02,
        0.02,
        0.002,
        0.002,
        0.0002,
        0.0002,
    ]


@pytest.mark.parametrize("policy", [NORMAL, LONG], ids=["normal", "long"])
def test_the_rate_drops_at_the_milestone_iterations(policy: object) -> None:
    """The schedule counts pictures, the log iterations: they must agree, for any N and batch."""
    assert policy in (NORMAL, LONG)
    drops = NORMAL.drops if policy is NORMAL else LONG.drops
    draw = random.Random(1)
    for _ in range(200):
        images, batch = draw.randrange(1, 3000), draw.randrange(1, 300)
        schedule = LearningRateSchedule(1.0, 1.0, 0, drops, images, batch)
        for position, drop in enumerate(drops):
            at = milestone_iteration(drop.epoch, images, batch)
            acted = [d for d in drops if d.epoch * images <= at * batch]
            assert len(acted) >= position + 1
            assert schedule.rate_at((at - 1) * batch) > schedule.rate_at(at * batch)


def test_the_rate_needs_no_history() -> None:
    """A run resumed at another batch meets the drops at the same number of pictures."""
    small = LearningRateSchedule(0.02, 0.02, 0, NORMAL.drops, COCO_TRAIN2017, 16)
    large = LearningRateSchedule(0.02, 0.02, 0, NORMAL.drops, COCO_TRAIN2017, 256)
    for images_seen in (0, 8 * COCO_TRAIN2017 - 1, 8 * COCO_TRAIN2017, 10 * COCO_TRAIN2017):
        assert small.rate_at(images_seen) == large.rate_at(images_seen)


@pytest.mark.parametrize(
    ("end", "warmup"), [(81323, 500), (5083, 500), (5000, 500), (4999, 499), (900, 90), (9, 0)]
)
def test_automatic_warmup_is_500_but_at_most_a_tenth(end: int, warmup: int) -> None:
    assert auto_warmup_iterations(end) == warmup
