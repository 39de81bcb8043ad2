"""What follows from the global batch, against sums done by hand."""

from collections.abc import Mapping

import pytest

from megdet_hvd.config.derive import Derived, derive
from megdet_hvd.config.explain import explain
from megdet_hvd.config.load import config_from_dict
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

COCO_TRAIN2017 = 118287


def config(global_batch: int, **sections: Mapping[str, object]) -> Config:
    return config_from_dict({"global_batch": global_batch, **sections})


def on(found: Config, machines: list[int], images: int = COCO_TRAIN2017) -> Derived:
    return derive(found, images, sum(machines), machines)


def test_batch_256_on_16_machines_of_8() -> None:
    found = on(config(256), [8] * 16)
    assert found.images_per_process_per_pass == 2
    assert found.peak_rate == 0.32
    assert found.warmup_iterations == 500
    assert found.warmup_start_rate == 0.02
    assert found.iterations_per_epoch == 118287 / 256
    assert found.milestone_iterations == (3697, 4621)
    assert found.end_iteration == 5083
    assert found.bn_images == (16,) * 16
    rates = [found.schedule.rate_at(256 * i) for i in (0, 250, 500, 3696, 3697, 4620, 4621)]
    assert rates == [0.02, 0.17, 0.32, 0.32, 0.032, 0.032, 0.0032]


def test_batch_16_on_one_machine_of_8() -> None:
    found = on(config(16), [8])
    assert found.images_per_process_per_pass == 2
    assert found.peak_rate == 0.02
    assert found.warmup_start_rate == pytest.approx(0.02 / 3, rel=1e-15)
    assert found.milestone_iterations == (59144, 73930)
    assert found.end_iteration == 81323


def test_long_policy() -> None:
    found = on(config(256, learning={"policy": "long"}), [8] * 16)
    assert found.milestone_iterations == (5083, 6469, 7855)
    assert found.end_iteration == 8318
    assert found.schedule.rate_at(256 * 7855) == 0.0016


def test_custom_policy_takes_its_drops_in_order_of_epochs() -> None:
    learning = {
        "policy": "custom",
        "milestones": [{"epoch": 2, "factor": 0.5}, {"epoch": 0.5, "factor": 0.1}],
        "epochs": 2.5,
        "warmup_iterations": 0,
    }
    found = on(config(4, learning=learning), [2], images=10)
    assert found.milestone_iterations == (2, 5)  # 5/4 → 2; 20/4 = 5
    assert found.end_iteration == 7  # 25/4 = 6.25
    assert found.warmup_iterations == 0
    assert [found.schedule.rate_at(4 * i) for i in range(7)] == [
        0.005,
        0.005,
        0.0005,
        0.0005,
        0.0005,
        0.00025,
        0.00025,
    ]


def test_explicit_learning_settings_win() -> None:
    learning = {
        "rate": 0.1,
        "rate_factor": 0.5,
        "warmup_iterations": 7,
        "warmup_start_rate": 0.01,
    }
    found = on(config(256, learning=learning), [8])
    assert (found.peak_rate, found.warmup_iterations, found.warmup_start_rate) == (0.05, 7, 0.01)


def test_half_rate_of_table_2() -> None:
    assert on(config(64, learning={"rate_factor": 0.5}), [8]).peak_rate == 0.04


def test_max_iterations_cuts_the_end_and_nothing_else() -> None:
    whole = on(config(16), [8])
    cut = on(config(16, learning={"max_iterations": 30}), [8])
    assert cut.end_iteration == 30
    assert cut.schedule == whole.schedule
    assert cut.milestone_iterations == whole.milestone_iterations
    late = on(config(16, learning={"max_iterations": 10**9}), [8])
    assert late.end_iteration == 81323


def test_accumulation_counts_in_the_batch() -> None:
    found = on(config(64, learning={"accumulation": 4}), [2, 2])
    assert found.images_per_process_per_pass == 4  # 64 / (4 processes × 4 passes)
    assert found.bn_images == (8, 8)
    assert found.peak_rate == 0.08


@pytest.mark.parametrize(
    ("norm", "scope", "images"),
    [
        ("cgbn", "machine", (12, 4)),
        ("cgbn", "world", (16, 16)),
        ("cgbn", "process", (4, 4)),
        ("bn", "machine", (4, 4)),
        ("frozen", "machine", ()),
        ("none", "machine", ()),
    ],
)
def test_images_per_bn_statistic(norm: str, scope: str, images: tuple[int, ...]) -> None:
    found = on(config(16, model={"norm": norm}, bn={"scope": scope}), [3, 1])
    assert found.bn_images == images


@pytest.mark.parametrize(
    ("batch", "world", "accumulation", "message"),
    [
        (
            250,
            128,
            1,
            "global_batch=250 does not divide over 128 processes × accumulation 1 "
            "(250 % 128 = 122); try 256 or 128",
        ),
        (
            130,
            128,
            1,
            "global_batch=130 does not divide over 128 processes × accumulation 1 "
            "(130 % 128 = 2); try 128 or 256",
        ),
        (
            4,
            8,
            1,
            "global_batch=4 does not divide over 8 processes × accumulation 1 (4 % 8 = 4); try 8",
        ),
        (
            20,
            3,
            2,
            "global_batch=20 does not divide over 3 processes × accumulation 2 "
            "(20 % 6 = 2); try 18 or 24",
        ),
    ],
)
def test_batch_that_does_not_divide(
    batch: int, world: int, accumulation: int, message: str
) -> None:
    with pytest.raises(UserError) as error:
        on(config(batch, learning={"accumulation": accumulation}), [world])
    assert str(error.value) == message


def test_no_pictures() -> None:
    with pytest.raises(UserError, match=r"0 pictures left.*data\.keep_empty=true"):
        on(config(16), [1], images=0)


def test_warmup_must_rise() -> None:
    with pytest.raises(UserError, match=r"warmup_start_rate=0.5 exceeds the peak rate 0.02"):
        on(config(16, learning={"warmup_start_rate": 0.5}), [1])


def test_peak_rate_must_be_finite() -> None:
    with pytest.raises(UserError, match=r"peak learning rate comes to inf"):
        on(config(16, learning={"rate": 1e300, "rate_factor": 1e300}), [1])


@pytest.mark.parametrize(("end", "over"), [(500, False), (501, True)])
def test_a_warmup_that_outlasts_the_run_is_told(end: int, over: bool) -> None:
    """The rate of an iteration is that after those before it: at 500 it is not yet the peak."""
    found = config(16, learning={"warmup_iterations": 500, "max_iterations": end})
    (line,) = [one for one in explain(found, on(found, [1])) if one.startswith("warm-up ")]
    note = ": never over, training ends at iteration 500"
    assert line.endswith("over 500 iterations (§3.2)" + ("" if over else note))


def test_the_arithmetic_in_words() -> None:
    found = config(256, data={"keep_empty": True})
    assert explain(found, on(found, [8] * 16)) == [
        "global batch 256 = 128 processes × 2 images × 1 pass",
        "learning rate 0.02 × 256/16 = 0.32 (linear scaling, §3.2)",
        "warm-up from 0.02 to 0.32 over 500 iterations (§3.2)",
        "iterations per epoch 118287/256 = 462.06 (data.keep_empty=true)",
        "epoch 8 → iteration 3697: rate × 0.1",
        "epoch 10 → iteration 4621: rate × 0.1",
        "epoch 11 → iteration 5083: end (normal policy)",
        "BN statistics over 8 ranks × 2 images = 16 images (bn.scope=machine, 16 machines)",
    ]


def test_the_arithmetic_of_a_short_run_on_uneven_machines() -> None:
    learning = {
        "rate": 0.1,
        "rate_factor": 0.5,
        "accumulation": 2,
        "max_iterations": 1000,
        "warmup_iterations": 0,
    }
    found = config(16, learning=learning)
    assert explain(found, on(found, [3, 1], images=1600)) == [
        "global batch 16 = 4 processes × 2 images × 2 passes",
        "learning rate 0.1 × 0.5 = 0.05 (learning.rate; linear scaling, §3.2, would give "
        "0.02 × 0.5)",
        "no warm-up",
        "iterations per epoch 1600/16 = 100.00 (data.keep_empty=false)",
        "epoch 8 → iteration 800: rate × 0.1",
        "epoch 10 → iteration 1000: rate × 0.1: never reached, training ends at iteration 1000",
        "end → iteration 1000 (learning.max_iterations; the normal policy ends at epoch 11, "
        "iteration 1100)",
        "BN statistics over 3 ranks × 2 images = 6 images (bn.scope=machine, 1 machine)",
        "BN statistics over 1 rank × 2 images = 2 images (bn.scope=machine, 1 machine)",
    ]


@pytest.mark.parametrize(
    ("norm", "scope", "line"),
    [
        (
            "cgbn",
            "world",
            "BN statistics over 4 ranks × 4 images = 16 images (bn.scope=world, 2 machines)",
        ),
        ("cgbn", "process", "BN statistics over 4 images, each process its own (bn.scope=process)"),
        ("bn", "machine", "BN statistics over 4 images, each process its own (model.norm=bn)"),
        ("frozen", "machine", "BN statistics frozen (model.norm=frozen)"),
        ("none", "machine", "no normalisation (model.norm=none)"),
    ],
)
def test_normalisation_in_words(norm: str, scope: str, line: str) -> None:
    found = config(16, model={"norm": norm}, bn={"scope": scope})
    assert explain(found, on(found, [2, 2]))[-1] == line
