"""What parts make of what a GPU tells them."""

import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megdet_hvd.config.schema import Config
from tests.gpu.visit import syncs
from tests.gpu.visit.bn_kernels import errors_beside_torch, no_worse
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.profile import STEPS, covered, of_events
from tests.gpu.visit.pytests import counts, of_report
from tests.gpu.visit.ranks import all_equal
from tests.gpu.visit.step_sides import config_of
from tests.gpu.visit.steps import RATIOS, SIDES


def event(name: str, kind: str, start: float, end: float, *, noted: bool = False) -> Any:
    return SimpleNamespace(
        name=name,
        device_type=SimpleNamespace(name=kind),
        time_range=SimpleNamespace(start=start, end=end),
        is_user_annotation=noted,
    )


def test_an_idle_gpu_is_seen() -> None:
    """Kernels from 0 to 300 µs and from 600 to 700 µs of 1 ms; an annotation covers all of it."""
    events = [
        event("Optimizer.step", "CUDA", 0, 1000, noted=True),
        event("gemm", "CUDA", 0, 200),
        event("norm", "CUDA", 100, 300),
        event("copy", "CUDA", 600, 700),
        event("cudaLaunchKernel", "CPU", 0, 5),
        event("cuLaunchKernelEx", "CPU", 5, 9),
        event("cudaStreamSynchronize", "CPU", 9, 600),
        event("aten::mm", "CPU", 0, 9),
    ]
    found = dict(of_events(events, 1e-3))
    assert found["GPU busy, share"] == pytest.approx(0.4)
    assert found["kernels and copies a step"] == 3 / STEPS
    assert found["kernels a step, ms"] == pytest.approx(0.5 / STEPS)
    assert found["launches a step"] == 2 / STEPS
    assert found["waits of the host a step"] == 1 / STEPS
    assert covered([]) == 0


def test_what_torch_warns_of_is_counted_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with pytest.warns(UserWarning, match="of another kind"), syncs.reported_syncs() as tally:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("of another kind", stacklevel=1)
    assert tally.syncs.total() == 3 and modes == ["warn", "default"]
    ((place, _),) = tally.syncs
    assert place.own == "outside the package"


def test_tests_are_counted() -> None:
    text = """<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>
    <testcase name="c"><skipped/></testcase><testcase name="d"><error/></testcase></testsuite>
    </testsuites>"""
    assert dict(of_report(text)) == {
        "passed": 1, "failed": 2, "skipped": 1, "failed: b": True, "failed: d": True
    }  # fmt: skip


def test_a_former_report_does_not_stand_for_tests_that_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests.xml").write_text("<testsuites/>", encoding="utf-8")
    broken = subprocess.CompletedProcess[str]("", -11)
    monkeypatch.setattr("tests.gpu.visit.pytests.subprocess.run", lambda *_, **__: broken)
    found = counts(Setting("cpu", True, tmp_path), ["a test"])
    assert next(iter(found)) == ("pytest's exit code", -11)
    with pytest.raises(FileNotFoundError):
        next(iter(found))


def test_ranks_that_wrote_nothing_are_not_equal() -> None:
    assert all_equal([{"weights": "a"}, {"weights": "a"}], "weights")
    assert not all_equal([{"weights": "a"}, {"weights": "b"}], "weights")
    assert not all_equal([{}, {}], "weights")


def test_each_side_is_a_run_that_there_may_be() -> None:
    names = [side.name for side in SIDES]
    assert {name for pair in RATIOS for name in pair} <= set(names)
    configs = [config_of(side, 2) for side in SIDES]
    assert all(isinstance(one, Config) and one.global_batch == 2 for one in configs)
    assert (
        configs[names.index("cgbn bfloat16 channels_last")].model.memory_format == "channels_last"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_what_a_gpu_is_asked_holds_on_a_cpu(dtype: torch.dtype, offset: float) -> None:
    if dtype == torch.bfloat16 and offset == 1e4:
        pytest.skip("bfloat16 has one value there")
    cpu = torch.device("cpu")
    for errors in errors_beside_torch(cpu, dtype, offset, last=False).values():
        assert no_worse(*errors, dtype, offset), errors
    assert not no_worse(1e-4, 1e-6, torch.float32, offset)
