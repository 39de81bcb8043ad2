"""A detector's labels against those of the data set it is measured on."""

import torch
from torch import Tensor, nn

from megdet_hvd.data.batch import Batch, Detections
from megdet_hvd.data.coco import lacking, require_known_categories
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.trained import Trained


def labels_in(index: ImageIndex, trained: Trained) -> Tensor:
    """For each label of the detector (0…K) the data set's own, 0 for "none": (K + 1,) int64.

    Detectors of ours were trained on the same categories, so this is 0, 1, …, K; where the data
    set lacks some, none stands for those, which COCOeval doesn't count either. torchvision's
    COCO detectors have labels for unused ids, and its other weights have no names: those are
    taken to be in the order of the data set's categories.

    Raises:
        UserError: the categories differ; the differences are named.
    """
    if not trained.named:
        if len(trained.categories) != len(index.categories):
            raise UserError(
                f"{trained.path} knows {len(trained.categories)} classes and "
                f"{index.annotation_files[0]} declares {len(index.categories)}; evaluate it on "
                "the data set it was trained for"
            )
        return torch.arange(len(trained.categories) + 1)
    used = trained.used()
    # A heading that has no boxes here is a class where training's files have some.
    known = {n: name for n, name in used.items() if index.headings.get(n) != name}
    require_known_categories(
        known,
        f"the detector {trained.path}",
        dict(zip(index.category_ids, index.categories, strict=True)),
        str(index.annotation_files[0]),
    )
    own = {number: label for label, number in enumerate(index.category_ids, start=1)}
    return torch.tensor([0, *(own.get(i, 0) if i in known else 0 for i in trained.category_ids)])


def unmeasured(index: ImageIndex, trained: Trained) -> list[str]:
    """What to say of classes of the detector that the data set doesn't declare."""
    if not trained.named:
        return []
    absent = lacking(trained.used(), {*index.category_ids, *index.headings})
    return [] if absent is None else [f"it declares no category {absent}: it is not measured"]


class Relabelled(nn.Module):
    """A detector whose detections carry other labels; those without one are dropped."""

    def __init__(self, detector: nn.Module, table: Tensor) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("table", table)

    def forward(self, batch: Batch) -> list[Detections]:
        """Detections of each picture, as the detector's own otherwise."""
        relabelled = []
        for found in self.detector(batch):
            labels = self.get_buffer("table").to(found.labels.device)[found.labels]
            kept = labels > 0
            relabelled.append(Detections(found.boxes[kept], found.scores[kept], labels[kept]))
        return relabelled
