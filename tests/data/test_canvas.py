import torch
from torch import Tensor

from megdet_hvd.data.canvas import BatchCanvas
from megdet_hvd.data.room import rooms_from


def picture(width: int, height: int, start: int) -> Tensor:
    count = 3 * width * height
    return (torch.arange(start, start + count) % 251 + 1).to(torch.uint8).view(3, height, width)


def dirty(size: int) -> Tensor:
    return torch.full((size,), 255, dtype=torch.uint8)


def test_pictures_lie_top_left_and_all_else_is_zero_whatever_the_memory_held() -> None:
    one, other = picture(40, 33, 0), picture(65, 20, 7)
    with rooms_from(dirty):
        canvas = BatchCanvas([(40, 33), (65, 20)])
    canvas.lay(one)
    canvas.lay(other, flip=True)
    found = canvas.finished()
    expected = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    expected[0, :, :33, :40] = one
    expected[1, :, :20, :65] = torch.flip(other, (2,))
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_pictures_that_stay_away_leave_no_room() -> None:
    with rooms_from(dirty):
        canvas = BatchCanvas([(40, 33), (300, 20), (20, 20)])
    canvas.lay(picture(40, 33, 0))
    canvas.lay(picture(20, 20, 5))
    found = canvas.finished()
    assert found.shape == (2, 3, 64, 64)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found[1, :, :20, :20], picture(20, 20, 5))
    assert int((found > 0).sum()) == 3 * (40 * 33 + 20 * 20)
    none = BatchCanvas([(300, 20)])
    assert none.finished().shape == (0, 3, 32, 32)
    assert BatchCanvas([]).finished().shape == (0, 3, 32, 32)
