from pathlib import Path

import pytest

from megdet_hvd.comm.position import place
from megdet_hvd.data.factory import open_datasets
from megdet_hvd.evaluation import inference
from megdet_hvd.evaluation.evaluate import evaluate_detector
from megdet_hvd.job.world import World
from megdet_hvd.model.build import build_detector, local_norm
from tests.engine.small import small_config


def test_every_batch_is_a_sign_of_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of a validation set may take longer than a hang may last."""
    config = small_config(tmp_path, ["evaluation.images_per_process=2"])
    data = open_datasets(config.data, is_main=True, wait=lambda: None)
    assert data.val is not None
    detector = build_detector(config.model, 6, local_norm(config.model), seed=0)
    said: list[str] = []
    monkeypatch.setattr(inference, "go_outside", said.append)
    before = place()[2]
    evaluate_detector(detector, data.val, config, World(rank=0, size=1, machines=((0,),)))
    assert said == ["evaluation"] * (len(data.val) // 2)
    assert place()[2] >= before
