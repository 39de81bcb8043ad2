import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.detector import CLASSES
from megdet_hvd.bench.step import pictures_of, step_config
from megdet_hvd.bench.step_counts import StepCounts, require_same_work
from megdet_hvd.bench.step_ours import build_ours, our_counts
from megdet_hvd.bench.step_torchvision import as_lists, build_peer, peer_counts
from megdet_hvd.cli import make_parser
from megdet_hvd.errors import RunError
from megdet_hvd.model.device import autocast
from tests.engine.small import thin_backbones
from tests.pool import on_ranks

CPU = torch.device("cpu")
BENCH = "megdet_hvd.bench.__main__"
WORDS = "step --size 70x96 --images 1 --turns 2 --device cpu"


def test_a_small_measurement_is_printed_and_recorded(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    words = [*WORDS.split(), "--profile=3", f"--json={file}", "model.roi.align=sparse"]
    done = on_ranks("tests.programs:run_thin", 1, BENCH, words, launcher="python")
    assert done.values == [0]
    lines = done.stdout.splitlines()
    assert "1 × 70×96 pixels, float32, 2 turns" in lines[0] and "torch" in lines[0]
    assert lines[1].startswith("a step: 1 × 96×96 pixels, ")
    assert lines[1].endswith(" drawn") and "256 anchors" in lines[1]
    assert lines[2].split() == ["clock", "s", "ratio", "processor", "s", "ratio"]
    assert [line.split()[0] for line in lines[3:5]] == ["ours", "torchvision"]
    costliest = [line.partition(",")[0] for line in lines if "costliest" in line]
    assert costliest == ["ours", "torchvision"]
    record = json.loads(file.read_text())
    assert record["settings"]["size"] == [70, 96] and record["settings"]["norm"] == "bn"
    assert record["settings"]["overrides"] == ["model.roi.align=sparse"]
    assert [len(side["clock_s"]) for side in record["sides"]] == [2, 2]


@pytest.mark.parametrize("norm", ["bn", "frozen", "cgbn"])
def test_both_sides_train_the_same(norm: str) -> None:
    options: Any = make_parser("x", "x", settings=False).parse_args([])
    words = ["model.roi.align=torchvision"] if norm == "bn" else []
    vars(options).update(norm=norm, images=2, precision="float32", overrides=words)
    config, batch = step_config(options), pictures_of((70, 96), 2)
    with thin_backbones():
        detector = build_ours(config, CPU)
        pool = detector.roi_heads.box_roi_pool
        assert pool.kernel_on(CPU) == ("torchvision" if words else "sparse")
        frozen = norm == "frozen"
        peer = build_peer(detector.state_dict(), CLASSES, (70, 96), frozen=frozen, device=CPU)
    trained = [
        {name: value.shape for name, value in side.named_parameters() if value.requires_grad}
        for side in (detector, peer)
    ]
    assert trained[0] == trained[1] and len(trained[0]) > 20
    before = peer.rpn.fg_bg_sampler
    found = our_counts(detector, config, batch)
    theirs = peer_counts(peer, lambda: autocast("float32", CPU), *as_lists(batch))
    assert peer.rpn.fg_bg_sampler is before
    assert found.canvas == theirs.canvas == (2, 96, 96)
    assert found.proposals == theirs.proposals > 100
    assert found.anchors == theirs.anchors == 512
    assert found.boxes == theirs.boxes > 100


def test_other_work_is_no_comparison() -> None:
    one = StepCounts((2, 320, 512), 4000, 512, 1024)
    require_same_work(one, replace(one, proposals=3970))
    for other in (
        replace(one, proposals=3950),
        replace(one, canvas=(2, 320, 544)),
        replace(one, anchors=511),
        replace(one, boxes=1000),
    ):
        with pytest.raises(RunError, match=r"do not do the same work \(\w+: "):
            require_same_work(one, other)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--turns 0", "--turns 0: must be at least 1"),
        ("--size 320", "give height x width, as 320x512"),
        ("--size 32x512", "--size 32×512: sides must be 64 or more"),
    ],
)
def test_wrong_options(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["step", *words.split()])
    assert told in capsys.readouterr().err
