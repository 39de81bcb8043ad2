"""What a checkpoint holds of many processes."""

from unittest import mock

import torch
from torch import nn

from megdet_hvd.engine import state
from megdet_hvd.job.world import World


def test_statistics_that_a_group_shares_are_one_tensor() -> None:
    """Four ranks on two machines; rank 3 has a layer that is not shared."""
    told = [[torch.tensor([1.0]), torch.tensor([5.0])] for _ in range(4)]
    told[2] = [torch.tensor([2.0]), torch.tensor([6.0])]
    told[3] = [torch.tensor([2.0]), torch.tensor([7.0])]
    world = World(0, 4, ((0, 1), (2, 3)))
    with mock.patch.object(state, "gather_on_main", return_value=told) as gathered:
        found = state._statistics_of_all(nn.BatchNorm2d(1), [[0, 1], [2, 3]], world)
        gathered.return_value = None
        assert state._statistics_of_all(nn.BatchNorm2d(1), [[0, 1], [2, 3]], world) is None
    assert found is not None
    assert [[float(one) for one in rank] for rank in found] == [[1, 5], [1, 5], [2, 6], [2, 7]]
    assert found[1][0] is found[0][0] and found[1][1] is found[0][1]
    assert found[3][0] is found[2][0] and found[3][1] is not found[2][1]
