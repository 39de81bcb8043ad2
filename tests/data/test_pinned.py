"""Room in pinned memory, as far as a machine without a GPU can tell."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from megdet_hvd.data.pinned import room_before

GPU = torch.device("cuda", 3)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that were made the current one."""
    seen: list[torch.device] = []

    @contextmanager
    def device(one: torch.device) -> Iterator[None]:
        seen.append(one)
        yield

    monkeypatch.setattr(torch.cuda, "device", device)
    return seen


def test_only_a_gpu_wants_pinned_memory() -> None:
    assert room_before(None) is None and room_before(torch.device("cpu")) is None


def test_memory_is_pinned_on_the_device_of_this_process(
    devices: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    plain = torch.empty

    def empty(size: int, **options: Any) -> torch.Tensor:
        asked.append(options)
        return plain(size, dtype=options["dtype"])

    monkeypatch.setattr(torch, "empty", empty)
    room = room_before(GPU)
    assert room is not None and room(60).shape == (60,)
    assert devices == [GPU] and asked == [{"dtype": torch.uint8, "pin_memory": True}]


def test_where_the_system_gives_none_pictures_go_on_in_plain_memory(
    devices: list[torch.device],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = torch.empty

    def empty(size: int, *, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return plain(size, **options)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(logging.getLogger("megdet_hvd"), "propagate", True)
    room = room_before(GPU)
    assert room is not None
    assert [room(size).shape for size in (60, 7)] == [(60,), (7,)]
    assert len(devices) == 1 and caplog.text.count("gives no pinned memory") == 1
