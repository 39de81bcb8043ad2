"""A few training steps on a GPU, through the command line's own entry."""

import json
from pathlib import Path

import pytest
import torch

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.memory.measure import peak_bytes
from megdet_hvd.memory.probe import made_up
from megdet_hvd.memory.recompute import recompute_segments
from megdet_hvd.model.build import build_detector, local_norm
from tests.engine.small import small_settings
from tests.ranks import run_ranks


@pytest.mark.parametrize(
    "more",
    [
        ("precision=float32",),
        ("precision=bfloat16", "memory.checkpoint=blocks"),
        ("precision=float16", "memory.checkpoint=stages", "learning.accumulation=2"),
    ],
)
def test_the_loss_falls(tmp_path: Path, more: tuple[str, ...]) -> None:
    settings = small_settings(
        tmp_path, "device=cuda", "learning.max_iterations=30", "name=run", *more
    )
    done = run_ranks(["-m", "megdet_hvd.train", *settings], 1, launcher="python", timeout_s=400)
    assert done.returncode == 0, done.stdout
    lines = [json.loads(t) for t in (tmp_path / "runs/run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == 30 and sum(losses[-5:]) < 0.9 * sum(losses[:5]), losses


def test_recomputation_gives_equal_bits(tmp_path: Path) -> None:
    weights = []
    for mode in ("none", "blocks"):
        settings = small_settings(
            tmp_path, "device=cuda", "precision=float32", "deterministic=true",
            "learning.max_iterations=5", f"memory.checkpoint={mode}", f"name={mode}",
        )  # fmt: skip
        done = run_ranks(["-m", "megdet_hvd.train", *settings], 1, launcher="python")
        assert done.returncode == 0, done.stdout
        weights.append(load_checkpoint(tmp_path / "runs" / mode)["model"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_recomputation_lowers_the_allocators_peak() -> None:
    device = torch.device("cuda")
    config = ModelConfig(backbone="resnet18", norm="bn")
    detector = build_detector(config, 5, local_norm(config), seed=0).to(device).train()
    batch = made_up(2, (256, 256), 4, 5).to(device)

    def step() -> None:
        sum(part.sum() for part in detector(batch).values()).backward()

    peaks = []
    for mode in ("none", "blocks"):
        recompute_segments(detector, mode)
        detector.zero_grad(set_to_none=True)
        step()
        detector.zero_grad(set_to_none=True)
        peaks.append(peak_bytes(step, detector, device))
    assert peaks[1] < 0.8 * peaks[0], peaks
