"""The host's side of a GPU: the stream that training runs on, and the cores that it needs."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megdet_hvd.cluster.threads import cores_for_loading
from megdet_hvd.config.load import load_config
from megdet_hvd.data.batch import fetched
from megdet_hvd.data.worker_count import worker_count
from megdet_hvd.engine import device as devices
from megdet_hvd.engine.device import borrowed_torch, prepare_device
from megdet_hvd.engine.state import random_state
from megdet_hvd.job.world import World
from megdet_hvd.memory.probe import made_up
from tests.pretend_cuda.device import CUDA, pretended_cuda

ROOT = Path(__file__).resolve().parents[2]


def test_a_process_with_a_gpu_keeps_three_cores_from_loading() -> None:
    assert [cores_for_loading(cores, on_gpu=False) for cores in (1, 2, 8)] == [1, 2, 8]
    found = [cores_for_loading(cores, on_gpu=True) for cores in (1, 2, 3, 4, 8)]
    assert found == [1, 1, 1, 2, 6]
    auto = [worker_count("auto", cores=cores, local_size=1) for cores in found]
    assert auto == [0, 0, 0, 1, 4]


def test_on_the_default_stream_and_back_on_the_programs_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two GPUs, of which a program uses the first on a stream of its own; training takes it."""
    current: dict[int, str] = {0: "the program's", 1: "default 1"}
    drawn = ["of the program"]
    at = [1]

    def set_stream(stream: str) -> None:
        at[0] = 1 if stream.endswith("1") else 0  # as torch: the stream's device becomes current
        current[at[0]] = stream

    def set_device(device: torch.device | int) -> None:
        at[0] = device if isinstance(device, int) else device.index

    stands_in: dict[str, Callable[..., Any]] = {
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: at[0],
        "current_stream": lambda index: current[index],
        "default_stream": lambda device: f"default {device.index}",
        "set_stream": set_stream,
        "set_device": set_device,
        "get_rng_state_all": drawn.copy,
        "set_rng_state_all": lambda states: drawn.__setitem__(slice(None), states),
    }
    for name, function in stands_in.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(devices, "pick_device", lambda *_: torch.device("cuda", 0))
    config = load_config(None, ["device=cuda", "precision=float32"])
    with borrowed_torch():
        prepare_device(config, World(rank=0, size=1, machines=((0,),)))
        assert current == {0: "default 0", 1: "default 1"} and at == [0]
        drawn[:] = ["of the training"]
    assert current == {0: "the program's", 1: "default 1"} and at == [1]
    assert drawn == ["of the program"]


def test_a_job_on_cpus_leaves_the_gpus_of_its_machine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever asks CUDA for its random state starts it, and takes memory on the first GPU."""

    def starts_cuda(*_: object) -> Tensor:
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", starts_cuda)
    assert list(random_state()) == ["cpu"]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.zeros(3))
    assert list(random_state()) == ["cpu", "cuda"]


def test_who_takes_a_gpu_by_local_rank_makes_it_the_current_one() -> None:
    """Else pinned memory, and whatever names no device, begins a context on the first GPU."""
    takes = []
    for file in sorted((ROOT / "megdet_hvd").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if re.search(r"= pick_device\(.*(world|everyone)\.local_rank", text):
            takes.append(file.name)
            assert "torch.cuda.set_device(device)" in text, file
    assert {"device.py", "evaluate.py", "evaluator.py", "run.py"} <= set(takes)


def test_memory_is_pinned_on_the_device_that_fetches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made_current: list[torch.device] = []

    @contextmanager
    def device(one: torch.device) -> Iterator[None]:
        made_current.append(one)
        yield

    with pretended_cuda():
        monkeypatch.setattr(torch.cuda, "device", device)
        there = fetched(torch.ones(3), CUDA)
        assert made_current == [CUDA] and there.is_cuda


def test_a_batch_goes_to_the_device_without_a_wait_unless_nothing_can_be_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(tensor: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: out of memory")

    batch = made_up(2, (64, 96), 3, 5)
    with pretended_cuda() as tally:
        there = batch.to(CUDA)
        assert not tally.syncs, tally.syncs_table()
        monkeypatch.setattr(Tensor, "pin_memory", refuse)
        again = batch.to(CUDA)
        assert tally.syncs.total() == 1 + 2 * 2  # pictures; boxes and labels of each
        for one in (there, again):
            assert torch.equal(one.images.cpu(), batch.images)
            assert torch.equal(one.targets[1].boxes.cpu(), batch.targets[1].boxes)
