import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.detector import CLASSES
from megdet_hvd.bench.fit import LargestBatch, canvas_of, largest_batch, search_largest, table
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.detector import Detector
from tests.engine.small import small_config, thin_backbones


@pytest.mark.parametrize("true", [0, 1, 2, 3, 7, 8, 9, 63, 64])
def test_the_largest_that_fits_is_found_in_few_trials(true: int) -> None:
    tried: list[int] = []

    def fits(images: int) -> bool:
        tried.append(images)
        return images <= true

    assert search_largest(fits, 64) == true
    assert len(tried) <= 12 and max(tried) <= 64


def test_a_canvas_has_whole_strides() -> None:
    assert canvas_of(800) == (800, 1344)
    assert canvas_of(65) == (96, 128)


def test_batches_are_compared_with_the_first_row() -> None:
    rows = [
        LargestBatch("none", 2, 3 * 2**30, 4.0),
        LargestBatch("blocks", 5, 3 * 2**30, 12.5),
        LargestBatch("stages", 0, 0, 0.0),
    ]
    lines = [line.split() for line in table(rows)[1:]]
    assert lines[0] == ["none", "2", "1.00", "3.00", "4.000", "0.50"]
    assert lines[1] == ["blocks", "5", "2.50", "3.00", "12.500", "0.40"]
    assert lines[2] == ["stages", "0", "0.00", "0.00", "0.000", "0.00"]


def test_memory_is_given_back_once_nothing_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error's frames hold the tensors of the step that did not fit, as long as it is handled."""
    held: list[weakref.ref[torch.Tensor]] = []
    emptied: list[bool] = []

    def peak_bytes(*_: object) -> int:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        if len(held) > 1:
            raise torch.cuda.OutOfMemoryError("of a GPU")
        return 1

    options: Any = SimpleNamespace(
        backbone="resnet18", norm="bn", size=64, most=4, memory=1, precision="float32"
    )
    model = small_config(tmp_path).model
    with thin_backbones():
        detector = build_detector(model, CLASSES, local_norm(model), seed=0).train()
    monkeypatch.setattr("megdet_hvd.bench.detector.made_detector", lambda *_: detector)
    monkeypatch.setattr("megdet_hvd.memory.measure.peak_bytes", peak_bytes)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(held[-1]() is None))
    assert largest_batch(options, torch.device("cpu"), "none").images == 1
    assert emptied == [True]


def test_a_small_measurement_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(*_: object) -> Detector:
        model = small_config(tmp_path).model
        with thin_backbones():
            return build_detector(model, CLASSES, local_norm(model), seed=0).train()

    monkeypatch.setattr("megdet_hvd.bench.detector.made_detector", small)
    file = tmp_path / "fit.json"
    words = f"fit --backbone resnet18 --size 64 --most 3 --memory 0.5 --device cpu --json={file}"
    assert main(words.split()) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[:2] for line in lines] == [["none", "3"], ["blocks", "3"], ["stages", "3"]]
    peaks = [row["peak_bytes"] for row in json.loads(file.read_text())["rows"]]
    assert 0 < peaks[1] < peaks[0] and 0 < peaks[2] < peaks[0], "recomputation holds less"
