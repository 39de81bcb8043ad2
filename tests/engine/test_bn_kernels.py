"""Which kernels CGBN's sums run on: checked before training, agreed on, kept by a run."""

from collections.abc import Sequence
from unittest import mock

import pytest
import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.fused_kernels import FusedKernels
from megdet_hvd.bn.fused_source import kernel_names
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.cuda.error import CudaError
from megdet_hvd.engine import bn_kernels
from megdet_hvd.engine.bn_kernels import Loader, find_bn_kernels
from megdet_hvd.errors import UserError
from megdet_hvd.job.agree import is_agreed
from megdet_hvd.model.kernels import begun_with, go_on_with
from tests.bn.fused_emulation import emulated_kernels
from tests.bn.test_fused import with_faults
from tests.engine.tale import ALONE
from tests.pretend_cuda.device import CUDA, pretended_cuda

CPU = torch.device("cpu")
OURS = "CGBN's sums: on kernels of our own, which compute here what torch's do"


def right(device: torch.device, dtypes: Sequence[torch.dtype]) -> FusedKernels:
    return emulated_kernels(device, dtypes)


def wrong(device: torch.device, dtypes: Sequence[torch.dtype]) -> FusedKernels:
    return emulated_kernels(device, dtypes, edit=with_faults, fault=3)


def none(device: torch.device, dtypes: Sequence[torch.dtype]) -> FusedKernels:
    raise CudaError("cuModuleLoadData", 209, "CUDA_ERROR_NO_BINARY_FOR_GPU")


def breaking(error: Exception) -> Loader:
    """They load, and fail when they are launched."""

    def launch(*_: object, **__: object) -> None:
        raise error

    def load(device: torch.device, dtypes: Sequence[torch.dtype]) -> FusedKernels:
        names = {(one, name): launch for one in dtypes for name in kernel_names(one)}
        return FusedKernels(device, names, 2, lambda: 0)

    return load


def unasked(device: torch.device, dtypes: Sequence[torch.dtype]) -> FusedKernels:
    raise AssertionError("nobody wants them")


def model() -> nn.Module:
    return nn.Sequential(CrossGPUBatchNorm2d(4), nn.ReLU(), CrossGPUBatchNorm2d(4))


def config(*more: str) -> Config:
    return load_config(None, ["precision=float32", *more])


def used(
    loader: Loader, *settings: str, before: dict[str, str] | None = None, resumed: bool = False
) -> tuple[bool, str | None, str]:
    """Whether the layers have them, the log's line, and what checkpoints say."""
    with pretended_cuda():
        detector = model().to(CUDA)
        found = find_bn_kernels(detector, config(*settings), ALONE, CUDA, loader)
        assert found is not None
        if resumed:
            go_on_with(detector, before)
        told = found.put_to_use(detector)
        layers = [one for one in detector.modules() if isinstance(one, CrossGPUBatchNorm2d)]
        have = {layer.fused is not None for layer in layers}
        assert len(have) == 1 and (layers[0].fused is layers[1].fused)
        return have.pop(), told, begun_with(detector)["bn"]


def test_a_new_run_has_them_where_they_are_right() -> None:
    assert used(right) == (True, OURS, "fused")
    assert used(right, "precision=bfloat16") == (True, OURS, "fused")
    assert used(right, "bn.kernels=fused") == (True, OURS, "fused")
    asked = "CGBN's sums: on torch's kernels (bn.kernels=torch)"
    assert used(unasked, "bn.kernels=torch") == (False, asked, "torch")


def test_where_they_are_not_to_be_had_it_has_torchs() -> None:
    have, told, kept = used(none)
    assert (have, kept) == (False, "torch")
    assert told == (
        "CGBN's sums: on torch's kernels; our own can't be used here: rank 0: cuModuleLoadData "
        "failed with CUDA_ERROR_NO_BINARY_FOR_GPU (209)"
    )
    have, told, kept = used(wrong)
    assert (have, kept) == (False, "torch")
    assert told is not None and "rank 0: means of torch.float32 values of shape (4, 24," in told
    resources = CudaError("cuLaunchKernel", 701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    memory = torch.OutOfMemoryError("CUDA out of memory")
    for error in (resources, memory):  # where they are checked
        have, told, kept = used(breaking(error))
        assert (have, kept) == (False, "torch")
        assert told is not None and told.endswith(f"can't be used here: rank 0: {error}")
    for loader in (none, wrong, breaking(memory)):
        with pytest.raises(UserError, match=r"bn\.kernels=fused, and .*: rank 0: ") as refused:
            used(loader, "bn.kernels=fused")
        assert is_agreed(refused.value)


def test_one_rank_without_them_is_enough() -> None:
    with mock.patch.object(bn_kernels, "gather_objects", return_value=[None, "no NVRTC", "no"]):
        have, told, kept = used(right)
    assert (have, kept) == (False, "torch")
    assert told is not None and told.endswith("our own can't be used here: rank 1: no NVRTC")


def test_a_run_goes_on_with_what_it_began_with() -> None:
    began = "CGBN's sums: on torch's kernels (the run began with them)"
    for before in (None, {}, {"bn": "torch"}):
        assert used(right, before=before, resumed=True) == (False, began, "torch")
    assert used(right, before={"bn": "fused"}, resumed=True) == (True, OURS, "fused")
    assert used(right, "bn.kernels=fused", before=None, resumed=True) == (True, OURS, "fused")
    have, told, kept = used(none, before={"bn": "fused"}, resumed=True)
    assert (have, kept) == (False, "fused")
    assert told is not None and "though the run began with our own" in told
    assert told.endswith("(209); last bits differ")


def test_on_a_cpu_there_is_nothing_to_say() -> None:
    detector = model()
    found = find_bn_kernels(detector, config(), ALONE, CPU, unasked)
    assert found is not None and found.put_to_use(detector) is None
    assert begun_with(detector) == {"bn": "fused"}
    assert find_bn_kernels(nn.BatchNorm2d(3), config(), ALONE, CPU, unasked) is None
