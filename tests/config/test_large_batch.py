"""Scaling, warm-up and warnings as a run's configuration has them, against sums done by hand."""

from typing import Any

import pytest

from megdet_hvd.config.derive import Derived, derive
from megdet_hvd.config.explain import explain
from megdet_hvd.config.load import config_from_dict
from megdet_hvd.config.schema import Config
from megdet_hvd.config.warnings import warnings
from megdet_hvd.errors import UserError

COCO_TRAIN2017 = 118287


def of(global_batch: int, **learning: Any) -> tuple[Config, Derived]:
    config = config_from_dict({"global_batch": global_batch, "learning": learning})
    return config, derive(config, COCO_TRAIN2017, 8, [8])


@pytest.mark.parametrize(
    ("learning", "rate", "line"),
    [
        (
            {"scaling": "sqrt"},
            0.08,
            "learning rate 0.02 × √(256/16) = 0.08 (square-root scaling, not the paper's)",
        ),
        (
            {"scaling": "sqrt", "rate_factor": 0.5},
            0.04,
            "learning rate 0.02 × √(256/16) × 0.5 = 0.04 (square-root scaling, not the paper's)",
        ),
        (
            {"scaling": "none"},
            0.02,
            "learning rate 0.02, whatever the batch (learning.scaling=none)",
        ),
        (
            {"scaling": "none", "rate_factor": 0.5},
            0.01,
            "learning rate 0.02 × 0.5 = 0.01, whatever the batch (learning.scaling=none)",
        ),
        (
            {"scaling": "sqrt", "rate": 0.1},
            0.1,
            "learning rate 0.1 (learning.rate; square-root scaling would give 0.08)",
        ),
        (
            {"scaling": "none", "rate": 0.1},
            0.1,
            "learning rate 0.1 (learning.rate; learning.scaling=none would give 0.02)",
        ),
        (
            {"rate_factor": 0.5},
            0.16,
            "learning rate 0.02 × 256/16 × 0.5 = 0.16 (linear scaling, §3.2)",
        ),
    ],
)
def test_the_rule_and_its_sum(learning: dict[str, Any], rate: float, line: str) -> None:
    config, derived = of(256, **learning)
    assert derived.peak_rate == rate
    assert explain(config, derived)[1] == line


def test_a_smaller_batch_scales_down() -> None:
    for scaling, rate in (("linear", 0.01), ("sqrt", 0.01414213562373095), ("none", 0.02)):
        assert of(8, scaling=scaling)[1].peak_rate == rate


def test_rates_of_the_paper_s_runs_at_chosen_iterations() -> None:
    _, long_16 = of(16, policy="long")
    assert (long_16.milestone_iterations, long_16.end_iteration) == (
        (81323, 103502, 125680),
        133073,
    )
    at = [500, 81322, 81323, 103502, 125680]
    rates = [long_16.schedule.rate_at(16 * iteration) for iteration in at]
    assert rates == [0.02, 0.02, 0.002, 0.0002, 0.0001]
    _, normal_16 = of(16)
    at = [0, 500, 59143, 59144, 73929, 73930, 81322]
    rates = [normal_16.schedule.rate_at(16 * iteration) for iteration in at]
    assert rates == [pytest.approx(0.02 / 3), 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]
    _, long_256 = of(256, policy="long")
    at = [0, 125, 500, 5082, 5083, 6468, 6469, 7854, 7855]
    rates = [long_256.schedule.rate_at(256 * iteration) for iteration in at]
    assert rates == [0.02, 0.095, 0.32, 0.32, 0.032, 0.032, 0.0032, 0.0032, 0.0016]


def test_warmup_in_pictures() -> None:
    config, derived = of(256, warmup_images=20_000)
    assert derived.warmup_iterations == 79  # 78.125
    line = "warm-up from 0.02 to 0.32 over 20000 images / 256 = 79 iterations (§3.2)"
    assert explain(config, derived)[2] == line
    assert of(256, warmup_images=0)[1].warmup_iterations == 0
    assert of(512, warmup_images=20_480)[1].warmup_iterations == 40


def test_two_lengths_of_one_warmup() -> None:
    with pytest.raises(UserError, match=r"warmup_iterations=500 and learning\.warmup_images=20 "):
        of(16, warmup_iterations=500, warmup_images=20)


@pytest.mark.parametrize(
    ("batch", "learning", "warmup"),
    [
        (256, {}, 500),
        (512, {}, 508),
        (512, {"policy": "long"}, 831),
        (512, {"large_batch": "warn"}, 254),
        (512, {"large_batch": "ignore"}, 254),
        (512, {"warmup_iterations": 700}, 700),
        (512, {"warmup_images": 512_000}, 1000),
        (256, {"large_batch": "ignore"}, 500),
    ],
)
def test_length_of_the_warmup(batch: int, learning: dict[str, Any], warmup: int) -> None:
    assert of(batch, **learning)[1].warmup_iterations == warmup


def test_no_warning_up_to_256() -> None:
    assert warnings(*of(256)) == warnings(*of(8)) == []
    assert warnings(*of(512, large_batch="ignore")) == []


@pytest.mark.parametrize(
    ("pictures", "batch", "learning", "warned"),
    [
        (1000, 64, {}, True),  # 172 iterations: 17 of warm-up
        (1000, 64, {"warmup_iterations": 17}, False),
        (1000, 64, {"warmup_images": 1000}, False),
        (1000, 64, {"rate": 0.04}, False),  # from 0.0133 to three times that
        (1000, 48, {}, False),  # three times
        (5760, 64, {}, True),  # 990 iterations: 99
        (5824, 64, {}, False),  # 1,001: 100
    ],
)
def test_a_steep_warm_up_that_nobody_asked_for_is_told(
    pictures: int, batch: int, learning: dict[str, Any], warned: bool
) -> None:
    config = config_from_dict({"global_batch": batch, "learning": learning})
    told = warnings(config, derive(config, pictures, 8, [8]))
    assert len(told) == warned
    if pictures == 1000 and warned:
        assert told[0].startswith(
            "the rate rises to 4 times its first value in 17 iterations, a tenth of a run of 172:"
        )


def test_a_number_of_iterations_that_the_policy_does_not_reach_is_told() -> None:
    assert of(256)[1].policy_iterations == 5083
    assert warnings(*of(256, max_iterations=5083)) == []
    assert warnings(*of(256, max_iterations=5084)) == [
        "learning.max_iterations=5084 changes nothing: it can only end a run earlier, and the "
        "normal policy ends at epoch 11, iteration 5083. A longer run: learning.policy=custom "
        "with learning.epochs and learning.milestones"
    ]


BEGINNING = (
    "global batch 512 is above 256, the largest that the paper shows, where published detection "
    "recipes leave plain linear scaling (at batch 256, rates of 0.226 and 0.24 instead of 0.32). "
)
END = (
    " If the loss grows all the same, take a lower learning.rate (learning.scaling=sqrt), then a "
    "layer-wise optimizer such as LARS or LAMB. learning.large_batch=ignore silences this"
)


@pytest.mark.parametrize(
    ("learning", "length"),
    [
        (
            {},
            "So the warm-up is lengthened from 254 to 508 iterations: 500 × 512/256 = 1000, but "
            "at most a fifth of the run, 2542/5 = 508.4.",
        ),
        (
            {"large_batch": "warn"},
            "The warm-up is not lengthened, 254 iterations (learning.large_batch=warn).",
        ),
        ({"warmup_iterations": 700}, "The warm-up is as configured, 700 iterations."),
    ],
)
def test_the_warning_above_256(learning: dict[str, Any], length: str) -> None:
    assert warnings(*of(512, **learning)) == [BEGINNING + length + END]


@pytest.mark.parametrize("word", ["bfloat16", "bf16", "BF16"])
def test_gradients_cannot_travel_as_bfloat16(word: str) -> None:
    with pytest.raises(UserError) as error:
        config_from_dict({"horovod": {"compression": word}})
    assert "1 setting is wrong" in str(error.value)
    assert f"horovod.compression={word}: Horovod 0.28.1 has no bfloat16" in str(error.value)
    assert "use fp16" in str(error.value)


def test_other_words_for_compression_get_the_list() -> None:
    with pytest.raises(UserError, match=r"horovod\.compression=float16: must be none or fp16"):
        config_from_dict({"horovod": {"compression": "float16"}})
