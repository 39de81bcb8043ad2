"""The bench of BN: what it counts, in real processes, and how it tells it."""

import math

import pytest
import torch
from torch import nn

from megdet_hvd.bench.__main__ import main as bench
from megdet_hvd.bench.bn import RANKS, busy_table, isolation_table, step_table
from megdet_hvd.bench.launch import run_in_ranks
from megdet_hvd.bench.textbook import TextbookBatchNorm2d


@pytest.mark.launch
@pytest.mark.tail  # how many messages ours sends: tests/bn/test_timeline.py
def test_ours_sends_one_message_each_way_where_a_textbook_sends_two() -> None:
    found = {
        one["variant"]: one
        for one in run_in_ranks(RANKS, 2, ["isolation", "--turns=1", "--images=1", "--device=cpu"])
    }
    for name, each_way in (("plain BN", 0), ("CGBN, horovod", 1), ("textbook, two collectives", 2)):
        one = found[name]
        ways = one["forward_collectives"], one["backward_collectives"]
        assert ways == (each_way * one["layers"],) * 2, name
    mpi = found.get("CGBN, mpi")
    if mpi is None:
        pytest.skip("no mpirun: the MPI carrier was not counted")
    assert mpi["bytes"] == found["CGBN, horovod"]["bytes"] > 0
    kept = {name: one["saved_bytes"] for name, one in found.items()}
    channels = 64 + 256 + 1024 + 2048
    assert kept["CGBN, horovod"] <= kept["plain BN"] + 24 * channels + 64
    assert all(one["forward_s"] > 0 and one["backward_s"] > 0 for one in found.values())
    lines = isolation_table(list(found.values()))
    assert len(lines) == 2 + len(found) and "| plain BN |" in lines[2] and "| 1.00 |" in lines[2]


def test_the_textbook_version_is_right_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    g = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    results = []
    for layer in (nn.BatchNorm2d(4).double(), TextbookBatchNorm2d(4).double()):
        y = layer(x)
        gradients = torch.autograd.grad(y, [x, layer.weight, layer.bias], g)
        results.append((y.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs)


def test_tables() -> None:
    step = {
        "variant": "plain BN", "gradients": "held back", "step_s": 2.0, "collectives": 0,
        "bytes": 0, "message_s": None, "worst_message_s": 0.0, "wait_s": 0.0, "peak_bytes": 2**21,
    }  # fmt: skip
    ours = {
        **step, "variant": "CGBN", "step_s": 2.1, "collectives": 106, "bytes": 4096,
        "message_s": 0.001, "worst_message_s": 0.02, "wait_s": 0.15,
    }  # fmt: skip
    lines = step_table([step, ours])
    assert lines[2] == "| plain BN | held back | 2.000 | 1.000 | 0 | 0 | – | – | 2 |"
    assert lines[3] == "| CGBN | held back | 2.100 | 1.050 | 106 | 4 | 1.00 (20.00) | 150 | 2 |"
    row = {
        "variant": "CGBN", "other machine": "at rest", "calls": 7, "message_s": 1e-3,
        "worst_message_s": math.pi,
    }  # fmt: skip
    assert busy_table([row])[2] == "| CGBN | at rest | 7 | 1.00 | 3141.59 |"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("bn --processes 0", "--processes, --turns and --images are 1 or more"),
        ("bn --turns 0", "--turns and --images are 1 or more"),
        ("bn --images 0", "--turns and --images are 1 or more"),
        ("bn --step -1", "--step 0 or more"),
        ("bn --size 32", "--size 32: must be 64 or more"),
        ("bn --backbone vgg", "invalid choice: 'vgg'"),
        ("fit --memory nan", "--memory above 0"),
        ("fit --memory inf", "--memory above 0"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_measured(
    words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench(words.split())
    assert told in capsys.readouterr().err


def test_an_error_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["memory", "--device", "tpu"]) == 2
    assert capsys.readouterr().err.startswith("error: device=tpu: expected auto, cpu, cuda")
