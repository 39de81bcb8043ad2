import json
import sys
from pathlib import Path

import torch
from PIL import Image

from megdet_hvd.data.factory import open_datasets
from megdet_hvd.data.loader import eval_batches
from megdet_hvd.lab.compare import draw, evaluations, side_command, table
from megdet_hvd.lab.peer import peer_of, train_peer
from megdet_hvd.model.build import build_detector, local_norm
from tests.engine.small import small_config


def results(ours: list[float], theirs: list[float]) -> dict[str, list[dict[str, float]]]:
    return {
        f"{side}-{seed}": [
            {"epoch": 1.0, "AP": 0.1, "AP50": 0.2, "AP75": 0.1},
            {"epoch": 2.0, "AP": value / 2, "AP50": value, "AP75": value / 4},
        ]
        for side, values in (("ours", ours), ("torchvision", theirs))
        for seed, value in enumerate(values)
    }


def test_the_table_shows_every_seed_and_the_difference_of_the_means() -> None:
    lines = table(results([0.8, 0.9], [0.6, 0.8]), [0, 1])
    assert "| ours | 1 | 0.900 | 0.450 | 0.225 |" in lines
    assert "| **torchvision** | **mean** | **0.700** | **0.350** | **0.175** |" in lines
    assert lines[-1].endswith("+15.0 points")


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    draw(results([0.8], [0.6]), tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (1000, 400)


def test_each_side_has_its_command() -> None:
    assert side_command("torchvision", 2) == [sys.executable, "-m", "megdet_hvd.lab.peer"]
    assert side_command("ours", 3)[1:] == ["-np", "3", sys.executable, "-m", "megdet_hvd.train"]


def test_the_peer_trains_and_is_measured_as_a_run_of_ours_is(tmp_path: Path) -> None:
    more = ["name=peer", "learning.max_iterations=2", "global_batch=6"]
    train_peer(small_config(tmp_path, more))
    metrics = tmp_path / "runs" / "peer" / "metrics.jsonl"
    losses = [
        record["loss"]
        for record in map(json.loads, metrics.read_text().splitlines())
        if record["kind"] == "train"
    ]
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
    (last,) = evaluations(metrics)
    assert set(last) == {"epoch", "AP", "AP50", "AP75"}


def test_the_peer_sees_evaluation_pictures_at_the_size_the_loader_gave_them(tmp_path: Path) -> None:
    config = small_config(tmp_path, ["data.min_sizes=[48]", "model.norm=bn"])
    data = open_datasets(config.data, is_main=True, wait=lambda: None)
    assert data.val is not None
    (batch, *_) = eval_batches(data.val, config.data, [0, 1], 2)
    ours = build_detector(config.model, 6, local_norm(config.model), seed=0).eval()
    for parameter in ours.roi_heads.box_predictor.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(1))
    peer = peer_of(ours, config).eval()
    for mine, theirs in zip(ours(batch), peer(batch), strict=True):
        assert len(mine.scores) and torch.equal(mine.labels, theirs.labels)
        assert torch.allclose(mine.boxes, theirs.boxes, atol=1e-3)
