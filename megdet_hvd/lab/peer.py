"""torchvision's own Faster R-CNN, trained by itself on what a run of ours would see.

``python -m megdet_hvd.lab.peer --config FILE [key.sub=value …]``: one process, plain BN, torch's
SGD; torchvision's own sampling and losses (normalised over the batch, drawn from the global
generator). Pictures, batches, augmentation, steps, schedule, initial weights and scoring are
ours, so that the two differ in the detector's training alone.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet_hvd.cli import add_config_option, make_parser, parse
from megdet_hvd.command import leave
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import StorageError, UserError

if TYPE_CHECKING:
    from torch import nn

    from megdet_hvd.data.batch import Batch
    from megdet_hvd.model.detector import Detector


def main(argv: Sequence[str] | None = None) -> int:
    """Train the peer; metrics go to ``OUTPUT/NAME/metrics.jsonl``."""
    parser = make_parser("megdet_hvd.lab.peer", (__doc__ or "").split("\n")[0])
    add_config_option(parser)
    arguments = parse(parser, argv)
    try:
        config = load_config(arguments.config, arguments.overrides)
        train_peer(config)
    except (UserError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 6
    return 0


def _floats(batch: "Batch") -> "Iterator[Any]":
    for image, info in zip(batch.images, batch.infos, strict=True):
        height, width = info.size
        yield image[:, :height, :width].contiguous().float() / 255


def peer_module(model: "nn.Module") -> "nn.Module":
    """The model of torchvision behind our batches: a loss in training, detections in evaluation."""
    from torch import nn

    from megdet_hvd.data.batch import Batch, Detections
    from megdet_hvd.model.detector import in_original_pixels

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Batch) -> Any:
            images = list(_floats(batch))
            if self.training:
                targets = [{"boxes": t.boxes, "labels": t.labels} for t in batch.targets]
                return self.model(images, targets)
            return [
                in_original_pixels(Detections(f["boxes"], f["scores"], f["labels"]), info)
                for f, info in zip(self.model(images), batch.infos, strict=True)
            ]

    return Peer()


def peer_of(ours: "Detector", config: Config) -> "nn.Module":
    """The model of torchvision with the weights of ``ours``, behind our batches."""
    from megdet_hvd.data.loader import eval_transform
    from megdet_hvd.model.torchvision_io import to_torchvision

    # The loader has resized already, and torchvision's own resize is the identity on that: in
    # training it is told to skip it, in evaluation the sizes fit.
    evaluated = eval_transform(config.data)
    model = to_torchvision(ours, min_size=evaluated.min_size, max_size=evaluated.max_size)
    model.transform._skip_resize = True
    return peer_module(model)


def train_peer(config: Config) -> None:
    """Train, evaluating when a run of ours would, on one process."""
    import os

    import torch

    from megdet_hvd.config.derive import derive
    from megdet_hvd.data.factory import open_datasets
    from megdet_hvd.data.loader import TrainLoader
    from megdet_hvd.engine.periods import due_by_epochs
    from megdet_hvd.engine.run_folder.metrics import Metrics
    from megdet_hvd.engine.step.optimizer import parameter_groups, set_rate
    from megdet_hvd.evaluation.coco_ap import in_short
    from megdet_hvd.evaluation.evaluate import evaluate_detector
    from megdet_hvd.job.world import World
    from megdet_hvd.model.build import build_detector, local_norm

    world = World(rank=0, size=1, machines=((0,),), cores=os.cpu_count() or 1)
    torch.manual_seed(config.seed)
    data = open_datasets(config.data, is_main=True, wait=lambda: None)
    if config.model.detector is not None:
        raise UserError("the peer is one of Faster R-CNN: set model.detector=null")
    if data.val is None:
        raise UserError("the peer is measured on validation pictures: give data.val")
    derived = derive(config, len(data.train), 1, [1])
    ours = build_detector(
        config.model, len(data.train.categories), local_norm(config.model), seed=config.seed
    )
    peer = peer_of(ours, config)
    learning = config.learning
    groups = parameter_groups(peer, learning.weight_decay, learning.decay_bn)
    optimizer = torch.optim.SGD(groups, lr=learning.base_rate, momentum=learning.momentum)
    folder = Path(config.output) / config.name
    folder.mkdir(parents=True, exist_ok=True)
    metrics = Metrics(folder / "metrics.jsonl", None, 0)
    loader = TrainLoader(
        data.train,
        config.data,
        seed=config.seed,
        global_batch=config.global_batch,
        accumulation=1,
        rank=0,
        world_size=1,
        start_iteration=0,
        end_iteration=derived.end_iteration,
    )
    began = time.monotonic()
    peer.train()
    for iteration, (batch,) in enumerate(loader, start=1):
        if batch.failed:
            raise StorageError(batch.failed[0])
        set_rate(optimizer, derived.schedule.rate_at((iteration - 1) * config.global_batch))
        losses = peer(batch)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epoch = iteration * config.global_batch / len(data.train)
        if iteration % config.log.every_iterations == 0:
            metrics.write("train", iteration, epoch=epoch, loss=loss.item())
        due = due_by_epochs(
            iteration, config.evaluation.every_epochs, len(data.train), config.global_batch
        )
        if due or iteration == derived.end_iteration:
            result = evaluate_detector(peer, data.val, config, world).result
            metrics.write("eval", iteration, epoch=epoch, **result.as_metrics())
            print(
                f"torchvision after iteration {iteration} (epoch {epoch:.2f}, "
                f"{time.monotonic() - began:.0f} s): "
                f"{in_short(result.ap, result.ap50, result.images)}",
                flush=True,
            )
    metrics.close()


if __name__ == "__main__":
    leave(main)
