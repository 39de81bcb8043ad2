from pathlib import Path

import pytest
import torch

from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import DataConfig
from megdet_hvd.data.factory import open_datasets
from megdet_hvd.job.world import World
from megdet_hvd.memory import recompute_segments
from megdet_hvd.memory.auto import Choice, cheapest, choose_mode, largest_work
from megdet_hvd.memory.available import MARGIN, activation_budget, own_cgroup, room_in_cgroup
from megdet_hvd.memory.measure import peak_bytes
from megdet_hvd.memory.probe import Workload, estimate_peaks, made_up, probe_canvas
from megdet_hvd.memory.segments import MODES, Mode
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.device import autocast
from tests.data.made import records
from tests.engine.small import SETTINGS, small_config

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, machines=((0,),))
PEAKS: dict[Mode, int] = {"none": 1000, "blocks": 400, "stages": 350}


def test_nothing_is_recomputed_where_everything_fits_else_what_needs_least() -> None:
    assert cheapest(PEAKS, 1000) == "none"
    assert cheapest(PEAKS, 999) == "stages"
    assert cheapest({**PEAKS, "blocks": 300}, 999) == "blocks"
    assert cheapest(PEAKS, 10) == "stages"


def test_the_choice_is_told_with_its_sum() -> None:
    work = Workload(4, (800, 1344), 7)
    peaks: dict[Mode, int] = {m: n * 2**22 for m, n in PEAKS.items()}
    told = Choice("stages", work, peaks, 2**31).explain()
    assert told == (
        "recomputation stages (memory.checkpoint=auto): 4 × 800×1344 pixels, the largest canvas, "
        "need about 3.91 GiB with none, 1.56 GiB with blocks, 1.37 GiB with stages; there are "
        "2.00 GiB a process, margin taken off"
    )
    assert "NONE FITS" in Choice("stages", work, peaks, 2**20).explain()


def test_the_largest_canvas_of_one_picture_and_of_several(tmp_path: Path) -> None:
    config = small_config(tmp_path).data
    data = open_datasets(config, is_main=True, wait=lambda: None).train
    data.widths[:3], data.heights[:3] = [100, 30, 64], [50, 90, 64]
    data.widths[3:], data.heights[3:] = 64, 64
    sizes = DataConfig(min_sizes=(48, 64), max_size=96)
    # 100×50 becomes 96×48, 30×90 becomes 32×96, 64×64 stays; sides in multiples of 32
    assert largest_work(data, sizes, 1).canvas == (64, 96)
    several = largest_work(data, sizes, 3)
    assert (several.images, several.canvas) == (3, (96, 96))
    per_picture = [len(record.boxes) for record in records(data)]
    assert several.boxes >= max(per_picture) > 0


def test_a_probe_keeps_the_shape_and_is_never_larger_than_asked() -> None:
    assert probe_canvas((96, 64)) == (96, 64)
    height, width = probe_canvas((800, 1344))
    assert height % 32 == width % 32 == 0
    assert height * width <= 1.2 * 2**16
    assert height / width == pytest.approx(800 / 1344, rel=0.2)


def test_estimates_are_what_a_step_then_needs() -> None:
    """At three times the probe's pixels and two pictures, within a quarter."""
    config = load_config(
        None, [*SETTINGS, "model.backbone=resnet18", "model.fpn_channels=32", "model.norm=bn"]
    ).model
    work = Workload(2, (448, 448), 4)
    before = torch.random.get_rng_state()
    estimates = estimate_peaks(config, 3, work, CPU, lambda: autocast("float32", CPU))
    assert torch.equal(before, torch.random.get_rng_state())
    detector = build_detector(config, 3, local_norm(config), seed=0).train()
    batch = made_up(work.images, work.canvas, work.boxes, 3)

    def step() -> None:
        torch.stack([part.sum() for part in detector(batch).values()]).sum().backward()

    for mode in MODES:
        recompute_segments(detector, mode)
        assert estimates[mode] == pytest.approx(peak_bytes(step, detector, CPU), rel=0.25), mode


def test_the_process_s_share_of_memory_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, [*SETTINGS, "model.backbone=resnet18"]).model
    detector = build_detector(config, 3, local_norm(config), seed=0)
    weights = sum(p.numel() * 4 for p in detector.parameters())
    monkeypatch.setattr("megdet_hvd.memory.available._ram", lambda: 10 * 2**30)
    left = 5 * 2**30 - 2 * weights - 128 * 2**20
    assert activation_budget(detector, CPU, 2) == pytest.approx(left * (1 - MARGIN), abs=1)
    work = Workload(2, (96, 96), 4)
    for ram, expected in ((2**33, {"none"}), (2**20, {"blocks", "stages"})):
        monkeypatch.setattr("megdet_hvd.memory.available._ram", lambda ram=ram: ram)
        choice = choose_mode(
            detector, config, work, 3, ALONE, CPU, lambda: autocast("float32", CPU)
        )
        assert choice.mode in expected and choice.fits == (ram == 2**33)


def test_limits_of_control_groups_count(tmp_path: Path) -> None:
    job = tmp_path / "job"
    step = job / "step"
    step.mkdir(parents=True)
    for folder, limit in ((job, "1000"), (step, "max")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("700\n")
        (folder / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert room_in_cgroup(step) == 1000 - 700 + 150
    assert room_in_cgroup(tmp_path) > 2**50
    membership = tmp_path / "cgroup"
    membership.write_text("4:cpu:/x\n0::/job/step\n")
    assert own_cgroup(membership) == Path("/sys/fs/cgroup/job/step")
    membership.write_text("4:cpu:/x\n")
    assert own_cgroup(membership) is None and own_cgroup(tmp_path / "none") is None
