"""A row of the table, against its parts worked out here."""

import time
from dataclasses import replace

import pytest

from megdet_hvd.config.derive import derive
from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.errors import UserError
from megdet_hvd.plan.collectives import Fabric, allreduce_s
from megdet_hvd.plan.prediction import (
    Prediction,
    Refused,
    cycle_ms,
    loaders,
    machine_sizes,
    predict,
    predict_all,
    scaled_compute,
    shared_constants,
)
from megdet_hvd.plan.question import largest_pixels, mean_pixels, pictures
from megdet_hvd.plan.stragglers import expected_maximum
from megdet_hvd.plan.tensors import bn_elements, count_tensors
from megdet_hvd.plan.work import count_work
from tests.plan.asked import question

LINKS = Fabric("nvlink", 120.0, 4 * 12.5 * 0.85)


def test_the_paper_on_16_gpus_by_hand() -> None:
    row = predict(question(), 16)
    shared = shared_constants()
    spread8 = shared.spread * 2**0.5 * expected_maximum(8)
    # Timed with sides of 640 to 800 and two stages frozen; ours are of 800, and none is.
    sides = (640, 672, 704, 736, 768, 800)
    padded = sum(max(a, b) ** 2 for a in sides for b in sides) / 36 * 4 / 3
    pixels = 800 * 800 * 4 / 3
    timed, model = ModelConfig(frozen_stages=2), ModelConfig()
    known = count_work(timed, padded, 80, 512).step
    whole = count_work(model, pixels, 80, 512).step / known
    at_theirs = count_work(model, padded, 80, 512).step / known
    assert whole == pytest.approx(1.187, abs=1e-3) and at_theirs == pytest.approx(1.056, abs=1e-3)
    image_s = 0.210 / (2 + shared.overhead_images + spread8)
    assert row.step.compute == pytest.approx(
        image_s * (2 * whole + shared.overhead_images * at_theirs)
    )
    assert row.step.stragglers == pytest.approx(
        image_s * whole * shared.spread * 2**0.5 * expected_maximum(16)
    )
    tensors = count_tensors(row.config.model, 80)
    assert row.step.bn_work == pytest.approx(4 * 4 * 2 * bn_elements(tensors, pixels, 512) / 900e9)
    wait = 448e-6 + 2 * 5e-6
    sums = [8 * (2 * x.channels + k) for x in tensors.bn_layers for k in (0, 1)]
    assert row.step.bn_messages == pytest.approx(
        sum(wait + allreduce_s(size, 8, 1, LINKS) for size in sums)
    )
    size = 4 * tensors.trained / 2  # 167 MB: two messages of at most 128 MiB
    assert row.step.gradients == pytest.approx(2 * (wait + allreduce_s(size, 16, 2, LINKS)))
    assert row.step.data == 0
    parts = vars(row.step).values()
    assert row.step.total == pytest.approx(sum(parts), abs=1e-12)
    assert row.images_per_s == pytest.approx(32 / sum(parts))
    assert row.training_s == pytest.approx(40662 * sum(parts))
    each = -(-5000 // 16) * 0.038 + 5.2
    assert row.evaluation_s == pytest.approx(11 * each)
    assert row.hours == pytest.approx((40662 * sum(parts) + 11 * each) / 3600)
    assert row.node_hours == pytest.approx(2 * row.hours)


def test_what_follows_from_the_batch_is_trainings() -> None:
    for row in predict_all(question(), (8, 128)):
        assert isinstance(row, Prediction)
        own = derive(row.config, 118_287, row.gpus, [8] * (row.gpus // 8))
        assert row.derived == own and row.batch == 2 * row.gpus
    assert own.end_iteration == 5083 and own.peak_rate == 0.32 and set(own.bn_images) == {16}


def test_efficiency_is_to_the_first_row_that_trains() -> None:
    rows = predict_all(question("global_batch=64", images_per_gpu=None), (7, 8, 32))
    assert isinstance(rows[0], Refused) and "does not divide over 7 processes" in rows[0].reason
    first, last = rows[1:]
    assert isinstance(first, Prediction) and isinstance(last, Prediction)
    assert first.efficiency == 1
    expected = (last.images_per_s / 32) / (first.images_per_s / 8)
    assert last.efficiency == pytest.approx(expected) and expected < 1
    with pytest.raises(UserError, match="7 GPUs: global_batch=64 does not divide"):
        predict_all(question("global_batch=64", images_per_gpu=None), (7,))


def test_frozen_bn_sends_nothing_and_lets_gradients_hide() -> None:
    frozen, ours = predict(question("model.norm=frozen"), 64), predict(question(), 64)
    assert frozen.step.bn_messages == frozen.step.bn_work == 0
    assert frozen.step.gradients < ours.step.gradients / 4
    assert frozen.group_ranks == 1 and frozen.memory.gib < ours.memory.gib


def test_statistics_over_all_ranks_cross_the_network() -> None:
    machine, world = predict(question(), 128), predict(question("bn.scope=world"), 128)
    assert (machine.group_ranks, machine.group_machines) == (8, 1)
    assert (world.group_ranks, world.group_machines) == (128, 16)
    assert world.step.bn_messages > machine.step.bn_messages
    pairs = predict(question("bn.scope=world", "bn.size=32"), 128)
    assert (pairs.group_ranks, pairs.group_machines) == (16, 2)
    alone = predict(question("bn.scope=process"), 128)
    assert alone.step.bn_messages == 0 and alone.step.bn_work > 0


def test_accumulated_passes_are_passes() -> None:
    once = predict(question("global_batch=16", images_per_gpu=None), 8)
    twice = predict(question("global_batch=32", "learning.accumulation=2", images_per_gpu=None), 8)
    follows = predict(question("learning.accumulation=2", images_per_gpu=2), 8)
    assert follows == twice and (twice.batch, twice.images) == (32, 2)
    assert set(twice.derived.bn_images) == set(once.derived.bn_images) == {16}
    assert twice.step.compute == pytest.approx(2 * once.step.compute)
    assert twice.step.bn_messages == pytest.approx(2 * once.step.bn_messages)
    assert twice.step.gradients == pytest.approx(once.step.gradients)
    assert twice.memory.gib == once.memory.gib


def test_passes_repeat_what_they_have_and_no_more() -> None:
    once, twice = (
        predict(question("model.norm=frozen", f"learning.accumulation={n}", adapters="10gbe"), 16)
        for n in (1, 2)
    )
    # Gradients of the last pass alone hide, and only behind it.
    assert once.step.gradients > 0.1
    assert twice.step.gradients == pytest.approx(once.step.gradients)
    assert twice.step.stragglers == pytest.approx(2**0.5 * once.step.stragglers)
    once, twice = (predict(question(f"learning.accumulation={n}"), 8) for n in (1, 2))
    assert twice.step.bn_work == pytest.approx(2 * once.step.bn_work)
    slow = ("data.workers=1", "model.norm=frozen", "learning.accumulation=4")
    row = predict(question(*slow, gpu="h100-mlperf", images_per_gpu=8), 8)
    assert row.step.total == pytest.approx(4 * 8 * 0.0102) and row.step.data > 0


def test_work_that_the_profile_has_in_it_is_not_added() -> None:
    asked = question()
    timed = replace(asked, profile=replace(asked.profile, norm="cgbn"))
    assert predict(timed, 8).step.bn_work == 0 < predict(asked, 8).step.bn_work


def test_fused_messages_are_as_large_as_is_set() -> None:
    row = predict(question("horovod.fusion_threshold_mib=1"), 16)
    size = 4 * count_tensors(row.config.model, 80).trained
    messages = -(-size // 2**20)
    each = 448e-6 + 2 * 5e-6 + allreduce_s(size / messages, 16, 2, LINKS)
    assert row.step.gradients == pytest.approx(messages * each)
    unfused, base = (predict(question(*words), 16) for words in (["deterministic=true"], []))
    assert unfused.step.gradients == base.step.gradients  # not counted, and said


def test_messages_over_machines_are_the_whole_groups() -> None:
    row = predict(question("bn.scope=world"), 128)
    wait = 448e-6 + 2 * 4 * 5e-6
    sums = [
        8 * (2 * x.channels + k)
        for x in count_tensors(row.config.model, 80).bn_layers
        for k in (0, 1)
    ]
    by_hand = sum(wait + allreduce_s(size, 128, 16, LINKS) for size in sums)
    assert row.step.bn_messages == pytest.approx(by_hand)


def test_memory_follows_the_model() -> None:
    def live(*overrides: str) -> float:
        return predict(question(*overrides), 8).memory.live_bytes

    base = live()
    assert live("model.backbone=resnet101") > 1.3 * base
    assert live("model.frozen_stages=2") == base
    assert live("model.norm=none") == live("model.norm=frozen") < base
    row = predict(question("model.frozen_stages=2"), 8)
    tensors = count_tensors(row.config.model, 80)
    assert tensors.held > tensors.trained
    assert row.memory.model_bytes == 4 * tensors.held + 8 * tensors.trained + 128 * 2**20


def test_the_longer_side_is_bounded() -> None:
    def sizes(side: int) -> float:
        return mean_pixels((800,), side)

    assert sizes(1333) == pytest.approx(800 * 800 * 4 / 3) and sizes(900) == 800 * 900
    assert largest_pixels((800,), 1333) == 800 * 1344
    assert largest_pixels((800,), 640) == 800 * 800  # never below the shorter side


def test_evaluation_stops_at_the_pictures_it_may_have() -> None:
    assert pictures(question("evaluation.max_images=7").config) == (118_287, 7)
    assert pictures(question("evaluation.max_images=7000").config) == (118_287, 5000)
    assert pictures(question("data.keep_empty=false").config) == (117_266, 5000)


def test_smaller_pictures_and_a_larger_backbone_scale_the_step() -> None:
    base = predict(question(), 8).step.compute
    overhead = scaled_compute(question(), question().config, 2).overhead_s
    half = predict(question("data.min_sizes=[400]"), 8).step.compute
    assert half - overhead == pytest.approx((base - overhead) / 4, rel=0.15)  # boxes are as many
    few = predict(question("model.roi.boxes_per_image=1", "model.fpn_channels=8"), 8).step.compute
    assert overhead < few < 0.65 * base  # as many launches, and the backbone
    deeper = predict(question("model.backbone=resnet101"), 8).step.compute
    assert deeper == pytest.approx(base * 0.286 / 0.209, rel=0.03)
    assert predict(question("model.backbone=resnet18"), 8).step.compute < 0.8 * base
    frozen = predict(question("model.frozen_stages=2"), 8).step.compute
    assert frozen == pytest.approx(base / 1.056, rel=1e-3)
    both = predict(question("data.min_sizes=[640,800]"), 8).step.compute - overhead
    assert both == pytest.approx((base - overhead) * (3 + 0.64) / 4, rel=0.01)  # the larger of two


def test_loaders_that_cannot_keep_up_show() -> None:
    row = predict(
        question("data.workers=1", "model.norm=frozen", gpu="h100-mlperf", images_per_gpu=8), 8
    )
    rest = row.step.total - row.step.data
    assert row.step.total == pytest.approx(8 * 0.0102) and rest < 8 * 0.0102
    # Training leaves three cores of a GPU's share alone, and no more processes run than cores.
    assert [loaders(question().config, cores) for cores in (1, 2, 4, 5, 8)] == [1, 1, 1, 2, 4]
    on_cpu = question("device=cpu").config
    assert [loaders(on_cpu, cores) for cores in (1, 2, 4, 8)] == [1, 1, 3, 4]
    eight = question("data.workers=8").config
    assert [loaders(eight, cores) for cores in (2, 8, 16)] == [2, 8, 8]
    assert loaders(question("data.workers=0").config, 8) == 1


def test_horovods_settings_count() -> None:
    assert cycle_ms(question().config) == 0.1
    assert cycle_ms(question("model.norm=frozen").config) == 1.0
    assert cycle_ms(question("device=cpu").config) == 1.0
    assert cycle_ms(question("horovod.cycle_time_ms=3").config) == 3.0
    base = predict(question(), 64).step
    assert predict(question("horovod.cycle_time_ms=5"), 64).step.bn_messages > 9 * base.bn_messages
    half = predict(question("horovod.compression=fp16"), 64).step.gradients
    assert half < 0.6 * base.gradients


def test_recomputation_is_chosen_where_it_is_needed() -> None:
    asked = question("memory.checkpoint=auto", images_per_gpu=8)
    row = predict(asked, 8)
    assert row.memory.mode == "stages" and row.fits
    plain = predict(question(images_per_gpu=8), 8)
    assert plain.memory.mode == "none" and not plain.fits
    assert row.step.compute == pytest.approx(1.15 * plain.step.compute)
    small = predict(question("memory.checkpoint=auto"), 8)
    assert small.memory.mode == "none" and small.fits


def test_machines() -> None:
    assert machine_sizes(12, 8) == (8, 4) and machine_sizes(4, 8) == (4,)
    row = predict(question(), 12)
    assert set(row.derived.bn_images) == {16, 8} and row.node_hours == 2 * row.hours


def test_without_validation_pictures_nothing_is_evaluated() -> None:
    row = predict(replace(question(), val_images=0), 8)
    assert row.evaluation_s == row.evaluations == 0


def test_a_run_that_ends_early_is_evaluated_as_often_as_it_is() -> None:
    assert predict(question("learning.max_iterations=100"), 8).evaluations == 1
    assert predict(question("learning.max_iterations=20000"), 8).evaluations == 3
    assert predict(question("evaluation.untrained=true"), 8).evaluations == 12


def test_evaluation_is_of_its_own_size_of_pictures() -> None:
    def each_s(*overrides: str) -> float:
        row = predict(question(*overrides), 8)
        return row.evaluation_s / row.evaluations - 5.2

    assert each_s() == pytest.approx(625 * 0.038)
    assert each_s("data.min_sizes=[400,800]") == pytest.approx(each_s())
    assert each_s() / 4 < each_s("data.eval_min_size=400") < each_s() / 3  # boxes are as many
    assert each_s("model.frozen_stages=2") == pytest.approx(each_s())


def test_classes_are_counted() -> None:
    many = predict(replace(question(), classes=1203), 8)
    base = predict(question(), 8)
    more = 5 * 1025 * (1203 - 80)
    assert many.memory.model_bytes - base.memory.model_bytes == 12 * more
    assert many.step.gradients > base.step.gradients


def test_precision_auto_is_what_the_gpu_has() -> None:
    def memory(gpu: str, *overrides: str) -> float:
        return predict(question(*overrides, gpu=gpu), 8).memory.gib

    assert memory("v100-amp") == memory("v100-amp", "precision=float32") == memory("v100")
    assert memory("v100-amp", "precision=float16") == memory("a100") < memory("v100")


def test_what_no_number_holds_is_refused() -> None:
    far = ("learning.policy=custom", "learning.epochs=1e308")
    with pytest.raises(UserError, match="the time is too large for a number"):
        predict(question(*far), 8)


def test_many_gpus_are_counted_in_no_time() -> None:
    """Processor time; the ranks of each machine were once looked for among all."""
    before = time.process_time()
    row = predict(question(), 400_003)
    assert time.process_time() - before < 4
    assert set(row.derived.bn_images) == {16, 6} and row.group_ranks == 8
