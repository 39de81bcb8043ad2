"""What a loader process hands over: all of it, unchanged, whatever else it loads meanwhile."""

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from megdet_hvd.data import shared_memory
from megdet_hvd.data.ahead import load_ahead
from megdet_hvd.data.room import room_for, rooms_from
from megdet_hvd.data.shared_memory import Receiver, Sender

Pipe = tuple[Connection, Connection]


@dataclass(frozen=True)
class Item:
    """A step of two pictures, as tensors of all kinds."""

    pictures: tuple[Tensor, ...]
    boxes: Tensor
    labels: Tensor
    empty: Tensor


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    here, there = multiprocessing.Pipe(duplex=False)
    with here, there:
        yield here, there


def item(number: int, size: int = 40) -> Item:
    pictures = tuple(room_for((1, 3, size, size)).fill_(number + k) for k in range(2))
    boxes = torch.arange(8, dtype=torch.float32).view(2, 4) + number
    return Item(pictures, boxes, torch.tensor([number]), torch.zeros(0, 4))


def check(found: Item, number: int, size: int = 40) -> None:
    for k, picture in enumerate(found.pictures):
        assert picture.shape == (1, 3, size, size) and picture.unique().tolist() == [number + k]
        picture.zero_()  # it is the receiver's own
    assert found.boxes.tolist() == [
        [number + k for k in row] for row in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    assert found.labels.dtype == torch.int64 and found.labels.tolist() == [number]
    assert found.empty.shape == (0, 4)
    found.boxes[0, 0] = 9  # writable


def test_steps_arrive_while_later_ones_are_laid_into_the_same_memory(pipe: Pipe) -> None:
    here, there = pipe
    sender, receiver = Sender(2), Receiver()
    waiting: list[int] = []
    sizes = [40, 40, 20, 64, 64, 8, 100, 40]
    with rooms_from(sender.room):
        for number, size in enumerate(sizes):
            sender.begin()
            message = sender.packed(item(number, size))
            pictures = 2 * 3 * size * size
            assert len(message) < max(4000, pictures), "pictures don't go through the pipe"
            there.send_bytes(message)
            waiting.append(number)
            if len(waiting) == 2:  # one step may be waiting while the next is laid
                first = waiting.pop(0)
                found, problem = receiver.take(here)
                assert problem is None
                check(found, first, sizes[first])
    found, _ = receiver.take(here)
    check(found, len(sizes) - 1, sizes[-1])


def test_memory_is_made_once_and_told_once(pipe: Pipe) -> None:
    here, there = pipe
    sender, receiver = Sender(2), Receiver()
    descriptors, lengths = [], []
    with rooms_from(sender.room):
        for number in range(8):
            sender.begin()
            message = sender.packed(item(number))
            lengths.append(len(message))
            there.send_bytes(message)
            check(receiver.take(here)[0], number)
            descriptors.append(len(os.listdir("/proc/self/fd")))
    assert len(set(descriptors[2:])) == 1, descriptors
    assert max(lengths[2:]) < min(lengths[:2]), "the first two tell of their memory"


def test_a_batch_that_is_not_in_its_room_goes_by_value(pipe: Pipe) -> None:
    here, there = pipe
    sender = Sender(2)
    sender.begin()
    with rooms_from(sender.room):
        room_for((4, 50))
    elsewhere = torch.full((4, 5), 7, dtype=torch.uint8)
    there.send_bytes(sender.packed([elsewhere, elsewhere[:, 1:3], torch.tensor(3)]))
    whole, part, scalar = Receiver().take(here)[0]
    assert whole.tolist() == [[7] * 5] * 4 and part.tolist() == [[7] * 2] * 4
    assert scalar.shape == () and int(scalar) == 3


def test_pictures_keep_their_order_in_memory_and_gaps_go_by_value(pipe: Pipe) -> None:
    here, there = pipe
    sender = Sender(2)
    sender.begin()
    with rooms_from(sender.room):
        rows = room_for((2, 30, 40, 3))
    rows.copy_(torch.arange(7200).view(rows.shape) % 251)
    step = [rows.permute(0, 3, 1, 2), rows[:, :20]]
    there.send_bytes(message := sender.packed(step))
    assert 4800 < len(message) < 7200, "the part with gaps, and no more"
    whole, part = Receiver().take(here)[0]
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole, step[0]) and torch.equal(part, step[1])
    assert whole.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr()


def test_what_is_no_plain_bytes_from_a_room_s_start_on_arrives_as_it_is(pipe: Pipe) -> None:
    here, there = pipe
    sender = Sender(2)
    sender.begin()
    with rooms_from(sender.room):
        laid = room_for((4, 8))
    laid.copy_(torch.arange(32, dtype=torch.uint8).view(4, 8))
    sent = [
        *(laid.view(torch.int32), laid.t(), laid[:, ::2], laid[:2], laid),
        torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    ]
    there.send_bytes(sender.packed(sent))
    found, problem = Receiver().take(here)
    assert problem is None
    for one, other in zip(found, sent, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_memory_that_is_not_there_is_asked_for_once(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each try leaves a dead file in /dev/shm, and room there is what is short.
    here, there = pipe
    shared = Mock(side_effect=RuntimeError("no room"))
    monkeypatch.setattr(shared_memory, "_shared", shared)
    sender, receiver = Sender(2), Receiver()
    with rooms_from(sender.room):
        for number in range(4):
            sender.begin()
            there.send_bytes(sender.packed(item(number)))
            found, problem = receiver.take(here)
            check(found, number)
            assert problem == "no room"
    assert shared.call_count == 1


def test_pictures_are_copied_into_the_room_that_is_given(pipe: Pipe) -> None:
    here, there = pipe
    sender, given = Sender(2), []

    def room(size: int) -> Tensor:
        given.append(torch.empty(size, dtype=torch.uint8))
        return given[-1]

    sender.begin()
    with rooms_from(sender.room):
        there.send_bytes(sender.packed(item(5)))
    found, _ = Receiver(room).take(here)
    assert [len(one) for one in given] == [4800, 4800]
    assert [p.data_ptr() for p in found.pictures] == [one.data_ptr() for one in given]
    check(found, 5)


class Pictures:
    """Step k is a picture of k, laid where there is room, and who laid it."""

    def files(self, number: int) -> list[str]:
        return [f"{number}.jpg"]

    def __getitem__(self, number: int) -> tuple[Tensor, int, int]:
        picture = room_for((1, 3, 64, 32 * (1 + number % 3))).fill_(number)
        return picture, os.getpid(), torch.get_num_threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_rooms_of_both_kinds_of_loader_and_one_thread_in_each(workers: int) -> None:
    threads, given = torch.get_num_threads(), []

    def room(size: int) -> Tensor:
        given.append(torch.empty(size, dtype=torch.uint8))
        return given[-1]

    came = list(load_ahead(Pictures(), range(12), workers, room=room))
    for number, (picture, process, used) in enumerate(came):
        assert picture.unique().tolist() == [number]
        assert (process == os.getpid()) == (workers == 0) and used == 1
    starts = {one.data_ptr() for one in given}
    assert {picture.data_ptr() for picture, *_ in came} == starts and len(given) == 12
    assert torch.get_num_threads() == threads, "training keeps its own"
