"""CGBN through a real batch job: two nodes, two processes each."""

import re

import torch
from torch import Tensor, nn

from megdet_hvd.bn.running import running_buffers
from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Batch
from megdet_hvd.data.factory import open_datasets
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.model.build import build_detector
from megdet_hvd.model.norm import batch_norm
from tests.slurm.lab import Lab, scenario

TWO_BY_TWO = ("--nodes=2", "--ntasks-per-node=2")


def pictures(config: Config, index: ImageIndex, rank: int) -> Batch:
    """What a rank handles in the first step."""
    loader = TrainLoader(
        index,
        config.data,
        seed=config.seed,
        global_batch=config.global_batch,
        accumulation=1,
        rank=rank,
        world_size=4,
        start_iteration=0,
        end_iteration=1,
    )
    return next(iter(loader))[0]


def plain_bn_over(config: Config, index: ImageIndex, ranks: tuple[int, ...]) -> list[Tensor]:
    """Mean and variance of every layer, by torch's own BN on one process."""
    parts = [pictures(config, index, rank) for rank in ranks]
    assert len({part.images.shape for part in parts}) == 1, "canvases of one size"
    together = Batch(
        torch.cat([part.images for part in parts]),
        tuple(info for part in parts for info in part.infos),
        tuple(target for part in parts for target in part.targets),
    )
    norm = batch_norm(config.model.norm_eps, 1.0)
    detector = build_detector(config.model, len(index.categories), norm, seed=config.seed)
    detector.train()(together)
    assert not any(type(m).__name__ == "CrossGPUBatchNorm2d" for m in detector.modules())
    return [buffer.clone() for buffer in running_buffers(detector)]


def spread(buffers: list[Tensor], position: int) -> Tensor:
    """The standard deviation of the layer that a buffer belongs to."""
    return buffers[position | 1].sqrt()


@scenario
def test_statistics_are_those_of_each_machines_pictures(lab: Lab) -> None:
    words = lab.small(
        "global_batch=8",
        "learning.max_iterations=1",
        "model.norm_momentum=1.0",
        "data.min_sizes=[64]",
        "data.max_size=64",
    )
    job = lab.sbatch("megdet_16gpu.sbatch", *words, options=TWO_BY_TWO)
    assert job.wait() == "COMPLETED", job.log
    where = r"4 processes on 2 machines \((n\d+): ranks 0-1, (n\d+): ranks 2-3\), started by srun"
    told = re.search(where, job.log)
    assert told is not None and told[1] != told[2], job.log
    config = load_config(job.folder / "config.yaml")
    index = open_datasets(config.data, is_main=True, wait=lambda: None).train
    kept: list[list[Tensor]] = load_checkpoint(job.folder)["running_statistics"]
    machines = [(0, 1), (2, 3)]
    for ranks in machines:
        expected = plain_bn_over(config, index, ranks)
        assert len(expected) > 20
        for rank in ranks:
            for place, (found, wanted) in enumerate(zip(kept[rank], expected, strict=True)):
                assert torch.equal(found, kept[ranks[0]][place]), "the same on a machine"
                unit = spread(expected, place) if place % 2 == 0 else wanted
                torch.testing.assert_close(found / unit, wanted / unit, rtol=0, atol=2e-4)
    # Between machines they differ by far more than rounding.
    apart = (kept[0][0] - kept[2][0]).abs() / spread(kept[0], 0)
    assert apart.max() > 1e-2, apart


def test_plain_bn_is_what_it_is_compared_with() -> None:
    assert isinstance(batch_norm(1e-5, 1.0)(8), nn.BatchNorm2d)
