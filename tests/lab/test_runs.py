import dataclasses
from collections import defaultdict
from pathlib import Path

import pytest

from megdet_hvd.config.derive import derive
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.lab.experiments import EXPERIMENTS
from megdet_hvd.lab.runs import (
    BASELINES,
    FIGURE4,
    TABLE2,
    TABLE3,
    TUNING,
    LabRun,
    as_words,
    cgbn,
    judged_runs,
    rate_runs,
    run_settings,
)
from megdet_hvd.lab.scale import FULL, GRADUAL, QUICK, LabScale, scene_settings

WITH_BOXES = 961
"""Of the 1,000 scenes of 96 pixels: 39 hold no object, and are not trained on."""


def config_of(run: LabRun, scale: LabScale) -> Config:
    return load_config(None, as_words({**scene_settings(scale), **settings(run, scale)}))


def settings(run: LabRun, scale: LabScale) -> dict[str, object]:
    # The embedded default stands below these words; the lab's own base file has the schema's.
    return {
        "learning.milestones": [],
        "learning.epochs": "auto",
        "evaluation.untrained": False,
        **run_settings(run, scale, seed=0),
    }


def test_a_name_means_one_training() -> None:
    named = defaultdict(set)
    for scale in (FULL, GRADUAL, QUICK):
        for experiment in EXPERIMENTS:
            for run in experiment.runs(scale):
                named[run.name].add(run)
    assert len(named) > 70
    assert {name: runs for name, runs in named.items() if len(runs) > 1} == {}


def test_the_rows_are_those_of_the_paper_s_tables() -> None:
    assert [(r.batch, r.rate_factor, r.warmup) for r in TABLE2] == [
        (8, 1.0, True),
        *[(b, f, w) for b in (16, 32, 64) for f, w in ((1.0, True), (0.5, True), (1.0, False))],
    ]
    assert {(r.norm, r.bn_size) for r in TABLE2} == {("frozen", None)}
    assert [(r.batch, r.rate_factor, r.warmup, r.bn_size) for r in TABLE3] == [
        (b, 1.0, True, 8) for b in (8, 16, 32, 64)
    ]
    assert [run.peak_rate(FULL) / FULL.base_rate for run in TABLE3] == [1, 2, 4, 8]
    assert TABLE2[5].peak_rate(FULL) == FULL.base_rate * 2  # batch 32, half of 4 r
    assert (TABLE2[0], TABLE3[0]) == BASELINES


def test_r_is_tuned_at_rates_that_do_not_follow_from_it() -> None:
    other = dataclasses.replace(FULL, base_rate=7 * FULL.base_rate)
    for run, rate in zip(TUNING, (0.005, 0.01, 0.02, 0.04, 0.08, 0.16), strict=True):
        assert run.name == f"frozen-b8-r{rate:g}-normal"
        assert run_settings(run, FULL, 0) == run_settings(run, other, 0)
        schedule = derive(config_of(run, FULL), FULL.train_images, 1, [1]).schedule
        assert schedule.rate_at(2 * FULL.train_images) == run.peak_rate(FULL) == rate
        assert schedule.warmup_start_rate == rate / 3


def test_updates_and_drops_are_the_policy_s() -> None:
    ends = {8: 1322, 16: 661, 32: 331, 64: 166}  # 11 epochs, as registration.md has them
    for run in TABLE3:
        derived = derive(config_of(run, FULL), WITH_BOXES, 1, [1])
        assert derived.end_iteration == ends[run.batch]
        warm = FULL.train_images + run.batch  # a batch straddles the end of the first epoch
        assert derived.schedule.rate_at(warm) == run.peak_rate(FULL)
        assert derived.schedule.rate_at(warm - 2 * run.batch) < run.peak_rate(FULL)
        after = derived.schedule.rate_at(int(10.5 * WITH_BOXES))
        assert abs(after / run.peak_rate(FULL) - 0.01) < 1e-9


def test_a_gradual_warm_up_has_as_many_updates_at_every_batch() -> None:
    for run in (*TABLE2, *TABLE3):
        derived = derive(config_of(run, GRADUAL), GRADUAL.train_images, 1, [1])
        rates = [derived.schedule.rate_at(i * run.batch) for i in range(101)]
        assert rates[100] == run.peak_rate(GRADUAL) == 0.01 * run.batch / 8 * run.rate_factor
        assert (rates[99] < rates[100]) == (rates[0] < rates[100]) == run.warmup, run.name
        assert derived.end_iteration == -(-11 * GRADUAL.train_images // run.batch)


def test_quick_has_all_drops_in_a_part_of_the_epochs() -> None:
    derived = derive(config_of(TABLE3[0], QUICK), QUICK.train_images, 1, [1])
    assert derived.end_iteration == 32  # 2 epochs of 128 pictures
    early = derived.schedule.rate_at(QUICK.train_images)
    late = derived.schedule.rate_at(2 * QUICK.train_images - 1)
    assert abs(late / early - 0.01) < 1e-9


def test_rows_that_are_followed_are_measured_after_each_epoch() -> None:
    every = {run: config_of(run, FULL).evaluation.every_epochs for run in (*TABLE3, *FIGURE4)}
    assert every == {run: float(run in (TABLE3[0], *FIGURE4)) for run in every}


def test_settings_reach_the_configuration(tmp_path: Path) -> None:
    run = dataclasses.replace(cgbn(32), warmup=False, updates=7)
    config = config_of(run, FULL)
    assert (config.global_batch, config.model.norm, config.bn.size) == (32, "cgbn", 8)
    assert config.learning.warmup_iterations == 0
    assert config.learning.max_iterations == 7
    frozen = config_of(TABLE2[2], FULL)
    assert (frozen.model.norm, frozen.bn.size, frozen.learning.rate_factor) == ("frozen", None, 0.5)


@pytest.mark.parametrize("scale", [FULL, GRADUAL, QUICK], ids=["full", "gradual", "quick"])
def test_what_is_tried_for_some_updates_takes_them_all_without_a_drop(scale: LabScale) -> None:
    # 1,000 pictures are 11 epochs of four updates at a batch of 256: the policy would end it.
    for run in (*rate_runs(scale), *judged_runs(scale)):
        derived = derive(config_of(run, scale), scale.train_images, 1, [1])
        rates = [derived.schedule.rate_at(i * run.batch) for i in range(derived.end_iteration)]
        assert run.updates is not None
        warm = scale.warmup_updates or max(1, run.updates // 5)
        assert len(rates) == run.updates, run.name
        assert rates[warm:] == [run.peak_rate(scale)] * (run.updates - warm), run.name
        assert max(rates[:warm]) < run.peak_rate(scale)
