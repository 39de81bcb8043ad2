"""The measurement of CGBN on a GPU, rehearsed without one."""

import torch

from tests.gpu.bn_times import RESNET50, BnShape, BnTime, measure, table, whole


def test_the_shapes_are_resnet_50s() -> None:
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.resnet50()
    found: dict[tuple[int, int], int] = {}

    def count(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        assert isinstance(layer, torch.nn.BatchNorm2d)
        key = (layer.num_features, 256 // inputs[0].shape[-1])
        found[key] = found.get(key, 0) + 1

    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(count)
    model(torch.zeros(2, 3, 256, 256, device="meta"))
    assert found == {(one.channels, one.stride): one.layers for one in RESNET50}


def test_a_rehearsal() -> None:
    shapes = (BnShape(4, 8, 2), BnShape(6, 16, 3))
    cpu = torch.device("cpu")
    found = measure(
        cpu, torch.float32, torch.channels_last, None, canvas=(64, 96), shapes=shapes, repeats=1
    )
    assert [one.shape for one in found] == [*shapes] and all(one.plain > 0 for one in found)
    assert whole(found)[2] is None
    times = [BnTime(shapes[0], 1.0, 2.0, 1.5), BnTime(shapes[1], 0.5, 1.0, 0.25)]
    assert whole(times) == (3.5, 7.0, 3.75)
    assert table(times).splitlines()[2:] == [
        "| 4 | 8 | 2 | 1.000 | 2.000 | 1.500 |",
        "| 6 | 16 | 3 | 0.500 | 1.000 | 0.250 |",
        "| all | | 5 | 3.50 | 7.00 | 3.75 |",
    ]
