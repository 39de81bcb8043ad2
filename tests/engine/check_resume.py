"""Called by several ranks: a run that was stopped and resumed, against one that was not."""

from collections.abc import Sequence
from pathlib import Path

import torch

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.config.load import override
from megdet_hvd.config.schema import Config
from megdet_hvd.engine.prepare import announce, prepare_run
from megdet_hvd.engine.run import execute
from megdet_hvd.job.exchange import barrier
from megdet_hvd.job.horovod_settings import HorovodSettings
from megdet_hvd.job.log import start_log
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.draw_versions import NEWEST_DRAW
from tests.engine.small import small_and_quiet, small_config

STEPS, STOPPED_AT = 5, 3  # 30 pictures, batch 12: step 3 straddles two epochs


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    content = load_checkpoint(folder)
    assert content["iteration"] == STEPS and content["images_seen"] == STEPS * 12
    assert content["draw_version"] == NEWEST_DRAW
    momentum = content["optimizer"]["state"]
    flat = {f"momentum.{k}": v["momentum_buffer"] for k, v in momentum.items()}
    return {**content["model"], **flat}


def check_start(world: World, config: Config, folder: Path) -> None:
    """Weights after start-up are bit for bit those loaded, on every rank."""
    file = folder / "start.pt"
    if world.is_main:
        detector = build_detector(config.model, 6, local_norm(config.model), seed=99)
        torch.save(detector.state_dict(), file)
    barrier(world, "start file")
    fine_tuned = override(config, [f"model.init_from={file}"])
    run = prepare_run(fine_tuned, world, Path(config.output) / "start", resume=False)
    stored = torch.load(file, weights_only=True)
    state = run.detector.state_dict()
    different = [n for n, v in stored.items() if not torch.equal(v, state[n])]
    assert len(stored) == len(state) and not different, different[:3]
    assert not run.optimizer.state_dict()["state"], "no step has been taken"


def resumed_bit_for_bit(path: str, machines: Sequence[int] | None) -> None:
    """Whole and in two parts, below ``path``; ``machines``: of each rank."""
    with small_and_quiet():
        _resumed(Path(path), machines)


def _resumed(folder: Path, machines: Sequence[int] | None) -> None:
    world = start(machine_of_rank=machines, settings=HorovodSettings(deterministic=True))
    start_log(world)
    torch.set_num_threads(1)

    def train(config: Config, name: str, steps: int, *, resume: bool = False) -> None:
        shorter = override(config, [f"learning.max_iterations={steps}"])
        run = prepare_run(shorter, world, Path(config.output) / name, resume=resume)
        announce(run)
        execute(run)
        barrier(world, "trained")

    check_start(world, small_config(folder), folder)
    # Plain BN: each rank's own statistics. More ranks would only take longer.
    for case in ("cgbn", "bn") if world.size <= 2 else ("cgbn",):
        config = small_config(folder, ["deterministic=true", f"model.norm={case}"])
        runs = Path(config.output)
        train(config, f"whole-{case}", STEPS)
        train(config, f"parts-{case}", STOPPED_AT)
        train(config, f"parts-{case}", STEPS, resume=True)
        if world.is_main:
            whole, parts = weights_of(runs / f"whole-{case}"), weights_of(runs / f"parts-{case}")
            assert whole.keys() == parts.keys()
            different = [n for n in whole if not torch.equal(whole[n], parts[n])]
            assert not different, f"{len(different)} tensors differ, {different[:3]}"
            lines = (runs / f"parts-{case}" / "metrics.jsonl").read_text().splitlines()
            assert len([n for n in lines if '"kind": "train"' in n]) == STEPS
    stop()
