"""Called by several ranks: the same training from annotation files, and from their kept index."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from megdet_hvd.config.load import override
from megdet_hvd.data.coco import examine
from megdet_hvd.data.index_cache import cache
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.engine.prepare import prepare_run
from megdet_hvd.engine.run import execute
from megdet_hvd.job.exchange import barrier, gather_objects
from megdet_hvd.job.horovod_settings import HorovodSettings
from megdet_hvd.job.log import start_log
from megdet_hvd.job.session import start, stop
from tests.engine.small import small_and_quiet, small_config


def same_training(path: str) -> None:
    """To the bit, with loader processes, whether it is kept, made or found."""
    with small_and_quiet(), mock.patch.object(cache, "WORTH_IT_BYTES", 0):
        _same_training(Path(path))


def _same_training(folder: Path) -> None:
    world = start(settings=HorovodSettings(deterministic=True))
    start_log(world)
    torch.set_num_threads(1)
    config = small_config(folder, ["deterministic=true", "data.workers=1", "global_batch=4"])
    if world.is_main:
        ensure_scenes(config.data.scenes)
    barrier(world, "scenes")
    scenes = ensure_scenes(config.data.scenes, render=False)
    sources = {
        name: [{"annotations": str(source.annotations), "images": str(source.images)}]
        for name, source in (("train", scenes.train), ("val", scenes.val))
    }
    words = ["data.kind=coco", "learning.max_iterations=2", "evaluation.every_epochs=1"]
    config = override(config, [*words, *(f"data.{k}={json.dumps(v)}" for k, v in sources.items())])
    told: dict[str, list[str]] = {}
    for name, place in (("off", "off"), ("made", "kept"), ("found", "kept")):
        setting = place if place == "off" else str(folder / place)
        own = override(config, [f"data.index_cache={setting}"])
        reads = mock.Mock(side_effect=examine)
        with mock.patch.object(cache, "examine", reads):
            run = prepare_run(own, world, Path(config.output) / name, resume=False)
        counts = gather_objects(reads.call_count, world, f"counts.{name}")
        assert counts == ([2, 0] if name == "made" else [0, 0]), (name, counts)
        assert (run.data.train.stored is None) == (place == "off")
        execute(run)
        barrier(world, "trained")
        if world.is_main:
            told[name] = (run.folder.path / "metrics.jsonl").read_text().splitlines()
    if world.is_main:
        lines = {name: [_without_times(line) for line in text] for name, text in told.items()}
        assert [one["kind"] for one in lines["off"]] == ["train", "train", "eval"]
        assert lines["off"] == lines["made"] == lines["found"], lines
    stop()


def _without_times(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)
    return {key: v for key, v in found.items() if not key.endswith("_s") and "slowest" not in key}
