import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from megdet_hvd.bn import CrossGPUBatchNorm2d, convert_cross_gpu_bn
from megdet_hvd.bn.statistics import group_moments, local_moments
from megdet_hvd.comm import groups
from tests.pool import on_ranks
from tests.ranks import Launcher

BOTH = ("horovod", "mpi")


@pytest.mark.parametrize(
    ("launcher", "np", "words", "machines", "groups"),
    [
        ("python", 1, (*BOTH, "refused"), None, None),
        ("mpirun", 2, BOTH, None, None),
        ("gloo", 3, ("horovod", "refused", "peer"), None, None),
        pytest.param("mpirun", 3, BOTH, None, None, marks=pytest.mark.tail),
        pytest.param("mpirun", 4, BOTH, None, None, marks=pytest.mark.tail),
        pytest.param("mpirun", 3, BOTH, (0, 1, 1), None, marks=pytest.mark.tail),
        pytest.param("gloo", 4, ("horovod",), (0, 0, 1, 1), None, marks=pytest.mark.tail),
        pytest.param("mpirun", 4, BOTH, (0, 1, 0, 1), None, marks=pytest.mark.tail),
        # bn.size: two groups on a machine
        pytest.param("mpirun", 4, BOTH, None, (0, 0, 1, 1), marks=pytest.mark.tail),
        pytest.param("mpirun", 4, ("peer",), None, (0, 0, 1, 1), marks=pytest.mark.tail),
        ("mpirun", 4, BOTH, (0, 0, 1, 1), (0, 1, 1, 0)),  # groups that span machines
    ],
)
def test_equal_to_plain_bn_on_the_concatenated_batch(
    launcher: Launcher,
    np: int,
    words: tuple[str, ...],
    machines: tuple[int, ...] | None,
    groups: tuple[int, ...] | None,
) -> None:
    check = "tests.bn.check_ranks:equal_to_plain_bn"
    on_ranks(check, np, machines, words, groups, launcher=launcher)


def test_moments_survive_a_mean_far_from_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64) + 1e4
    parts = [local_moments(part) for part in x.split([1, 5, 2])]
    n, mean, variance = group_moments(torch.stack(parts).sum(0))
    assert int(n) == 8 * 32 * 32
    assert torch.allclose(mean, x.mean((0, 2, 3)), rtol=1e-14)
    assert torch.allclose(variance, x.var((0, 2, 3), correction=0), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 1, 700_000), (1, 3, 400, 700), (2, 64, 60, 80)])
def test_moments_of_a_channels_last_input_are_good_with_few_channels_too(
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).abs().contiguous(memory_format=torch.channels_last)
    _, mean, variance = group_moments(local_moments(x))
    exact = x.double()
    assert torch.allclose(mean, exact.mean((0, 2, 3)), rtol=1e-7)
    assert torch.allclose(variance, exact.var((0, 2, 3), unbiased=False), rtol=2e-6, atol=0)


def test_converted_model_keeps_tensors_keys_modes_and_frozen_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3, momentum=None), FrozenBatchNorm2d(4)
    )
    model[1].eval()
    weight, keys = model[1].weight, list(model.state_dict())
    converted = convert_cross_gpu_bn(model)
    layer = converted[1]  # type: ignore[index]
    assert isinstance(layer, CrossGPUBatchNorm2d)
    assert layer.weight is weight and not layer.training
    assert (layer.eps, layer.momentum, layer.message_name) == (1e-3, None, "cgbn.1")
    assert isinstance(converted[2], FrozenBatchNorm2d)  # type: ignore[index]
    assert list(converted.state_dict()) == keys


def test_a_bn_layer_by_itself_is_replaced() -> None:
    assert isinstance(convert_cross_gpu_bn(nn.BatchNorm2d(2)), CrossGPUBatchNorm2d)


def test_a_layer_that_stands_in_two_places_stays_one() -> None:
    shared = nn.BatchNorm2d(3)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(shared))
    convert_cross_gpu_bn(model)
    assert isinstance(model[0], CrossGPUBatchNorm2d)
    assert model[2] is model[0] and model[3][0] is model[0]  # type: ignore[index]


def test_a_carrier_is_found_anew_in_another_session() -> None:
    layer = CrossGPUBatchNorm2d(3)
    first = layer.carrier
    assert layer.carrier is first and first.size == 1
    groups.remember(groups.BnGroup((0,), None))
    try:
        assert layer.carrier is not first
    finally:
        groups.forget()


def test_wrong_dimensions_are_named_as_nn_batchnorm_names_them() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        CrossGPUBatchNorm2d(2)(torch.zeros(3, 2))


def test_alone_without_horovod_it_is_plain_bn_and_copies() -> None:
    layer, plain = CrossGPUBatchNorm2d(3), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    assert torch.allclose(layer(x), plain(x), atol=1e-6)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin.eval()(x), layer.eval()(x))
