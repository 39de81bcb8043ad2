"""Batches: what is on the canvas, equal with and without workers, resumed, and safe beside MPI."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from megdet_hvd.config.schema import DataConfig
from megdet_hvd.config.sections.data import ResizeSetting
from megdet_hvd.data.batch import Batch
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.loader import TrainLoader, eval_batches
from megdet_hvd.data.worker_count import configured_workers, worker_count
from tests.data.made import read_coco
from tests.ranks import run_ranks

from .made import box, image, write_set

ROOT = Path(__file__).parents[2]


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    sizes = [(40, 30), (30, 44), (64, 64), (50, 20), (33, 47), (40, 40), (21, 60)]
    images = [image(k + 1, width=w, height=h) for k, (w, h) in enumerate(sizes)]
    boxes = [box(2 * k, k, [1, 2, 10, 8], 3) for k in range(1, 8)]
    boxes += [box(2 * k + 1, k, [5, 5, 15, 15], 90) for k in range(1, 8, 2)]
    return read_coco([write_set(tmp_path, images, boxes)], keep_empty=True, invalid_boxes="stop")


def loader(
    index: ImageIndex,
    workers: int = 0,
    start: int = 0,
    end: int = 6,
    resize: ResizeSetting = "auto",
    **more: Any,
) -> Any:
    config = DataConfig(
        kind="scenes",
        min_sizes=(32, 48),
        max_size=70,
        flip_probability=0.5,
        resize=resize,
        workers=workers,
    )
    options = {"seed": 4, "global_batch": 4, "accumulation": 1, "rank": 0, "world_size": 1}
    return TrainLoader(index, config, **(options | more), start_iteration=start, end_iteration=end)


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and a.infos == b.infos
        and a.unreadable == b.unreadable
        and len(a.targets) == len(b.targets)
        and all(
            torch.equal(x.boxes, y.boxes) and torch.equal(x.labels, y.labels)
            for x, y in zip(a.targets, b.targets, strict=True)
        )
    )


@pytest.mark.parametrize(("resize", "levels"), [("pillow", 0), ("auto", 2)])
def test_canvas_pictures_and_boxes(index: ImageIndex, resize: ResizeSetting, levels: int) -> None:
    flips = 0
    for [batch] in loader(index, resize=resize):
        assert len(batch) == 4
        assert batch.images.dtype == torch.uint8
        sides = np.asarray([info.size for info in batch.infos])
        assert batch.images.shape[2:] == tuple(-(-sides.max(axis=0) // 32) * 32)
        for pixels, info, target in zip(batch.images, batch.infos, batch.targets, strict=True):
            record = index.record(info.index)
            assert info.image_id == record.image_id
            assert info.original_size == (record.height, record.width)
            h, w = info.size
            assert min(h, w) in (32, 48) or max(h, w) == 70
            assert not pixels[:, h:].any()
            assert not pixels[:, :, w:].any()
            with Image.open(record.file) as stored:
                wanted = np.asarray(stored.resize((w, h), Image.Resampling.BILINEAR)).astype(int)
            found = pixels[:, :h, :w].permute(1, 2, 0).numpy()
            flipped = abs(found - wanted).max() > levels
            assert abs(found - (wanted[:, ::-1] if flipped else wanted)).max() <= levels
            flips += flipped
            scale = torch.tensor([w / record.width, h / record.height] * 2)
            boxes = torch.from_numpy(record.boxes) * scale
            if flipped:
                boxes = torch.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1)
            assert torch.allclose(target.boxes, boxes, rtol=0, atol=1e-4)
            assert target.labels.tolist() == record.labels.tolist()
    assert 4 < flips < 20


def test_ranks_share_the_step_and_a_rank_may_be_without(index: ImageIndex) -> None:
    whole = [step[0] for step in loader(index)]
    for world, accumulation in [(2, 1), (2, 2), (4, 1), (7, 1)]:
        ranks = [
            list(loader(index, rank=r, world_size=world, accumulation=accumulation))
            for r in range(world)
        ]
        for number, reference in enumerate(whole):
            parts = [ranks[r][number][a] for a in range(accumulation) for r in range(world)]
            infos = [info for part in parts for info in part.infos]
            assert infos == list(reference.infos)
            for part in parts:
                for info, pixels in zip(part.infos, part.images, strict=True):
                    h, w = info.size
                    other = reference.images[infos.index(info)]
                    assert torch.equal(pixels[:, :h, :w], other[:, :h, :w])
                if not part.infos:
                    assert part.images.shape == (0, 3, 32, 32)


def test_resumed_loader_carries_on(index: ImageIndex) -> None:
    whole = list(loader(index, end=9))
    tail = list(loader(index, start=4, end=9))
    assert len(tail) == len(loader(index, start=4, end=9)) == 5
    assert all(same(a[0], b[0]) for a, b in zip(whole[4:], tail, strict=True))
    assert list(loader(index, start=9, end=9)) == []


def test_unreadable_pictures_are_reported_not_raised(index: ImageIndex) -> None:
    index.file(2).write_bytes(b"not a picture")
    Image.new("RGB", (9, 9)).save(index.file(5))  # not the picture that was annotated
    found: dict[str, str] = {}
    for [batch] in loader(index, end=7):
        assert len(batch) + len(batch.unreadable) == 4
        assert len(batch.targets) == len(batch) == len(batch.images)
        found |= {bad.file: bad.reason for bad in batch.unreadable}
    assert set(found) == {str(index.file(2)), str(index.file(5))}
    assert "annotated as 40×40" in found[str(index.file(5))]
    config = DataConfig(min_sizes=(32,), max_size=70, workers=0)
    batches = list(eval_batches(index, config, [1, 2, 3], 2))
    assert [len(batch) for batch in batches] == [1, 1]
    assert [bad.file for batch in batches for bad in batch.unreadable] == [str(index.file(2))]


def test_evaluation_batches(index: ImageIndex) -> None:
    config = DataConfig(min_sizes=(24, 32), max_size=70, workers=0)
    batches = list(eval_batches(index, config, [6, 0, 4], 2))
    assert [[info.index for info in batch.infos] for batch in batches] == [[6, 0], [4]]
    assert all(batch.targets == () for batch in batches)
    assert batches[0].infos[0].size == (70, 25)  # 21×60: the longer side decides
    assert batches[0].infos[1].size == (32, 43)  # the largest of min_sizes
    with Image.open(index.file(0)) as stored:
        wanted = np.asarray(stored.resize((43, 32), Image.Resampling.BILINEAR)).astype(int)
    assert abs(batches[0].images[1, :, :32, :43].permute(1, 2, 0).numpy() - wanted).max() <= 2
    other = DataConfig(min_sizes=(24,), max_size=70, eval_min_size=64, workers=0)
    [batch] = eval_batches(index, other, [0], 2)
    assert batch.infos[0].size == (53, 70)
    assert list(eval_batches(index, config, [], 2)) == []


def test_workers_bring_the_same_batches(index: ImageIndex) -> None:
    index.file(3).write_bytes(b"")
    alone = list(loader(index, workers=0, accumulation=2))
    helped = list(loader(index, workers=2, accumulation=2))
    assert len(alone) == len(helped) == 6
    for a, b in zip(alone, helped, strict=True):
        assert len(a) == len(b) == 2
        assert all(same(x, y) for x, y in zip(a, b, strict=True))


BESIDE_MPI = """
    import os, sys
    from mpi4py import MPI  # what a worker must not do: this line starts MPI
    from megdet_hvd.config.schema import DataConfig
    from megdet_hvd.data import loader as module
    from megdet_hvd.data.source import PictureSource
    from megdet_hvd.data.coco import read_sources
    from pathlib import Path

    assert MPI.COMM_WORLD.size == int(sys.argv[2])
    folder = Path(sys.argv[1])
    index = read_sources([PictureSource(folder / "set.json", folder / "pictures")],
                         keep_empty=True, invalid_boxes="stop")
    config = DataConfig(min_sizes=(32,), max_size=70, workers=1)
    rank = MPI.COMM_WORLD.rank
    loader = module.TrainLoader(index, config, seed=0, global_batch=2, accumulation=1, rank=rank,
        world_size=MPI.COMM_WORLD.size, start_iteration=0, end_iteration=3)
    counts = []
    for [batch] in loader:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        server = [c for c in children if "forkserver" in Path(f"/proc/{c}/cmdline").read_text()]
        workers = [w for s in server
                   for w in Path(f"/proc/{s}/task/{s}/children").read_text().split()]
        for worker in workers:
            maps = Path(f"/proc/{worker}/maps").read_text()
            assert "libtorch" in maps
            assert "libmpi" not in maps and "mpi4py" not in maps and "horovod" not in maps
        counts.append(len(workers))
    total = MPI.COMM_WORLD.allreduce(3)
    assert counts[0] == 1 and total == 3 * MPI.COMM_WORLD.size, (counts, total)
    print("RANK", rank, "FINE")
"""


def test_workers_know_nothing_of_mpi(index: ImageIndex, tmp_path: Path) -> None:
    script = tmp_path / "main program.py"
    script.write_text(textwrap.dedent(BESIDE_MPI))
    done = run_ranks(
        script, 2, tmp_path, 2, launcher="mpirun", timeout_s=300, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("FINE") == 2


def test_worker_counts() -> None:
    def auto(cores: int, local_size: int, **memory: int) -> int:
        return worker_count("auto", cores=cores, local_size=local_size, **memory)

    assert [auto(cores, 1) for cores in (1, 2, 3, 5, 6, 64)] == [0, 1, 2, 4, 4, 4]
    assert [auto(2, ranks) for ranks in (1, 2, 8)] == [1, 0, 0]
    assert [auto(64, ranks) for ranks in (8, 16, 32, 64)] == [4, 3, 1, 0]
    # 64 MB of shared memory for 2 ranks: 3 steps of 5 MB each per worker.
    assert auto(64, 2, step_bytes=5_000_000, shared_bytes=64_000_000) == 2
    assert auto(64, 8, step_bytes=5_000_000, shared_bytes=64_000_000) == 0
    assert worker_count(7, cores=1, local_size=9) == 7
    assert worker_count(0, cores=64, local_size=1) == 0


def test_cores_that_a_launcher_has_divided_are_not_divided_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("megdet_hvd.data.worker_count.shared_memory_bytes", lambda: None)

    def workers(local_size: int, cores: int | None) -> int:
        return configured_workers(
            DataConfig(), images=2, min_size=64, local_size=local_size, cores=cores
        )

    assert workers(8, 12) == 4  # eight ranks, each bound to twelve cores of its own
    assert workers(8, 1) == 0
    assert workers(10**6, None) == 0  # not bound: what is seen is shared by all
