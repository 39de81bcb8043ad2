import torch
from torch import nn

from megdet_hvd.memory.measure import LiveBytes, peak_bytes

MB = 1_000_000


def test_tensors_count_while_they_live() -> None:
    with LiveBytes(nn.Identity()) as live:
        a = torch.zeros(MB, dtype=torch.uint8)
        b = torch.zeros(2 * MB, dtype=torch.uint8)
        a[: MB // 2].add_(1)  # a view and an in-place result are no new bytes
        del a
        c = torch.zeros(3 * MB, dtype=torch.uint8)
        del b, c
        torch.zeros(4 * MB, dtype=torch.uint8)
    assert live.peak == 5 * MB
    held = live.at_peak()
    assert [nbytes for _, _, nbytes in held] == [3 * MB, 2 * MB]
    assert "(3000000,)" in held[0][0] and held[0][1] == 1


def test_what_was_there_before_does_not_count_nor_do_weights_and_gradients() -> None:
    layer = nn.Linear(500, 400, bias=False)
    x = torch.randn(10, 500, requires_grad=True)
    with LiveBytes(layer) as live:
        y = layer(x)
        y.sum().backward()
    # y, and the gradients of y and x; that of the weight, 800 kB, stays and is left out
    assert 10 * 400 * 4 <= live.peak <= 10 * (2 * 400 + 500) * 4 + 100
    assert layer.weight.grad is not None


def test_an_added_gradient_counts_until_it_is_added() -> None:
    layer = nn.Linear(500, 400, bias=False)
    x = torch.randn(10, 500)
    layer(x).sum().backward()
    with LiveBytes(layer) as live:
        layer(x).sum().backward()
    assert live.peak >= 500 * 400 * 4


def test_the_peak_of_a_chain_is_what_its_backward_pass_needs() -> None:
    """Each square keeps its input: of 4, the first is the leaf, so 3 tensors and one more."""
    x = torch.ones(250_000, requires_grad=True)

    def step() -> None:
        y = x
        for _ in range(4):
            y = y * y
        y.sum().backward()

    # 3 kept, and their last product, the sum's gradient and its two halves at most
    peak = peak_bytes(step, nn.Identity(), torch.device("cpu"))
    assert 4 * MB <= peak <= 8 * MB
