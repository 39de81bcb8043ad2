"""The detector run over one rank's share of the pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from megdet_hvd.comm.position import go_outside
from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Detections, Unreadable
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.loader import eval_batches
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job import stopping
from megdet_hvd.model.device import autocast


def share_out(
    aspects: Sequence[float], images_per_batch: int, rank: int, size: int
) -> list[list[int]]:
    """The batches of pictures that one rank evaluates, as positions 0…n-1.

    Every picture is in exactly one batch of one rank; the last rank may have one batch fewer.
    Which pictures share a canvas doesn't depend on the number of ranks, so neither do the
    detections. Pictures are ordered by shape (``aspects``: width over height) to pad little.
    """
    order = sorted(range(len(aspects)), key=lambda i: aspects[i])
    batches = [order[i : i + images_per_batch] for i in range(0, len(order), images_per_batch)]
    return batches[rank::size]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every layer is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def detect(
    detector: nn.Module,
    index: ImageIndex,
    config: Config,
    batches: Sequence[Sequence[int]],
    *,
    local_size: int = 1,
    cores: int | None = None,
) -> tuple[dict[int, Detections], list[Unreadable], list[str]]:
    """Detections, on the CPU, by position in the index. No communication takes place.

    Beside them, pictures that can't be decoded, and the files of those that are all but black
    (:func:`megdet_hvd.data.depth.all_but_black`).

    BN layers use their running statistics in evaluation mode, so a rank with fewer batches, or
    none, leaves nobody waiting. Once this process knows that the job shall stop, it takes no
    more batches: pictures are then missing from all three.

    Raises:
        UserError: a picture can't be decoded and ``data.unreadable_images`` is ``stop``.
            Otherwise it has no detections and is returned in the second list.
        StorageError: a picture's file can't be read at the moment.
    """
    device = next(detector.parameters()).device
    positions = [position for batch in batches for position in batch]
    found: dict[int, Detections] = {}
    unreadable: list[Unreadable] = []
    dark: list[str] = []
    images_per_batch = config.evaluation.images_per_process
    with evaluating(detector), autocast(config.precision, device):
        for batch in eval_batches(
            index,
            config.data,
            positions,
            images_per_batch,
            local_size=local_size,
            cores=cores,
            limit_s=config.watchdog.seconds,
            device=device,
        ):
            if batch.failed:
                raise StorageError(batch.failed[0])
            for picture in batch.unreadable:
                if config.data.unreadable_images == "stop":
                    raise UserError(
                        f"{picture.file}: cannot be decoded ({picture.reason}); replace the file, "
                        "or go on without such pictures with data.unreadable_images=skip"
                    )
            unreadable += batch.unreadable
            dark += batch.dark
            if stopping.wanted() is not None:
                break
            go_outside("evaluation")  # anew for each batch: a share may take long in all
            if not len(batch):
                continue
            for info, item in zip(batch.infos, detector(batch.to(device)), strict=True):
                found[info.index] = Detections(
                    item.boxes.float().cpu(), item.scores.float().cpu(), item.labels.cpu()
                )
    return found, unreadable, dark
