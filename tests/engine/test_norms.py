"""Who shares BN statistics, and what the log says of it."""

import pytest
import torch

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.engine.needs import training_needs
from megdet_hvd.engine.norms import (
    describe_norm,
    detector_norm,
    shares_statistics,
    shares_statistics_with_all,
    sharing_of,
)
from megdet_hvd.engine.state import own_statistics
from megdet_hvd.errors import UserError
from megdet_hvd.job.world import World
from tests.engine.small import SETTINGS

MACHINES = ((0, 1, 2, 3), (4, 5, 6, 7))


def config(*more: str) -> Config:
    """8 processes × 2 images."""
    return load_config(None, [*SETTINGS, "global_batch=16", *more])


def world(rank: int = 5) -> World:
    return World(rank=rank, size=8, machines=MACHINES)


@pytest.mark.parametrize(
    ("settings", "groups", "everybody", "line"),
    [
        (
            (),
            MACHINES,
            False,
            "CGBN: 1 layers share statistics over ranks 4-7 (one machine): 4 × 2 = 8 images a "
            "statistic; 2 such groups; bn.carrier=horovod",
        ),
        (
            ("bn.size=4", "bn.carrier=mpi"),
            ((0, 1), (2, 3), (4, 5), (6, 7)),
            False,
            "CGBN: 1 layers share statistics over ranks 4-5 (one machine): 2 × 2 = 4 images a "
            "statistic; 4 such groups; bn.carrier=mpi",
        ),
        (
            ("bn.carrier=peer",),
            MACHINES,
            False,
            "CGBN: 1 layers share statistics over ranks 4-7 (one machine): 4 × 2 = 8 images a "
            "statistic; 2 such groups; bn.carrier=peer, as asked for: its test sums were right; no "
            "run on GPUs is on record yet, so compare a short one with bn.carrier=horovod",
        ),
        (
            ("bn.scope=world",),
            (tuple(range(8)),),
            True,
            "CGBN: 1 layers share statistics over ranks 0-7 (2 machines): 8 × 2 = 16 images a "
            "statistic; bn.carrier=horovod",
        ),
        (
            ("bn.size=1",),
            tuple((r,) for r in range(8)),
            False,
            "CGBN: 1 layers, each process splits its 2 images into statistics of 1; nothing is "
            "sent",
        ),
        (
            ("bn.scope=process",),
            tuple((r,) for r in range(8)),
            False,
            "CGBN: 1 layers, 2 images a statistic; nothing is sent",
        ),
    ],
)
def test_groups_follow_scope_and_size(
    settings: tuple[str, ...], groups: tuple[tuple[int, ...], ...], everybody: bool, line: str
) -> None:
    found = config(*settings)
    assert sharing_of(found)(MACHINES) == groups
    assert shares_statistics_with_all(found, world()) is everybody
    assert shares_statistics(found, world()) is ("nothing is sent" not in line)
    layer = torch.nn.Sequential(CrossGPUBatchNorm2d(3))
    assert describe_norm(layer, found, world(), 2) == line


@pytest.mark.parametrize("norm", ["frozen", "none", "bn"])
def test_without_cgbn_nobody_needs_a_process_set(norm: str) -> None:
    assert sharing_of(config(f"model.norm={norm}"))(MACHINES) == tuple((r,) for r in range(8))


def test_accumulated_passes_do_not_enlarge_a_statistic() -> None:
    found = config("learning.accumulation=2", "bn.size=4")
    assert sharing_of(found)(MACHINES) == MACHINES  # 1 image a pass and process


def test_a_split_reaches_the_layers() -> None:
    layer = detector_norm(config("bn.size=1"), world())(3)
    assert isinstance(layer, CrossGPUBatchNorm2d) and layer.images_per_statistic == 1


def test_a_bn_size_without_cgbn_is_refused() -> None:
    with pytest.raises(UserError, match=r"bn\.size=4 belongs to model\.norm=cgbn"):
        config("model.norm=bn", "bn.size=4")


def test_peer_sums_want_kernels_loaded_before_any_sum() -> None:
    assert training_needs(config("bn.carrier=peer")).environment == {"CUDA_MODULE_LOADING": "EAGER"}
    assert training_needs(config()).environment == {}


def test_uneven_machines_are_told_apart() -> None:
    found, machines = config("global_batch=6"), ((0,), (1, 2))
    alone = World(rank=0, size=3, machines=machines)
    assert shares_statistics(found, alone), "all processes decide alike"
    layer = torch.nn.Sequential(CrossGPUBatchNorm2d(3))
    lines = [
        describe_norm(layer, found, World(rank=rank, size=3, machines=machines), 2)
        for rank in (0, 1)
    ]
    assert lines == [
        "CGBN: 1 layers, 2 images a statistic; this process sends nothing; 1 larger groups share "
        "theirs",
        "CGBN: 1 layers share statistics over ranks 1-2 (one machine): 2 × 2 = 4 images a "
        "statistic; 1 groups of another size; bn.carrier=horovod",
    ]


def test_running_statistics_of_other_groups_are_not_taken_up() -> None:
    own = [[torch.full((2,), float(rank))] for rank in range(4)]
    before = {"running_statistics": own, "bn_groups": [[0, 1], [2, 3]]}
    four = World(rank=2, size=4, machines=((0, 1), (2, 3)))
    kept = own_statistics(before, [[0, 1], [2, 3]], four)
    assert kept is not None and torch.equal(kept[0], own[2][0])
    assert own_statistics(before, [[0, 1, 2, 3]], four) is None
    assert own_statistics({"running_statistics": own}, [[0, 1], [2, 3]], four) is None
    assert own_statistics({"running_statistics": None, "bn_groups": []}, [], four) is None


def test_mpi_sums_are_refused_on_a_gpu_before_the_first_step() -> None:
    alone = World(rank=0, size=1, machines=((0,),))
    with pytest.raises(UserError, match="CPU tensors, and this run computes on cuda"):
        detector_norm(config("bn.carrier=mpi"), alone, torch.device("cuda"))
