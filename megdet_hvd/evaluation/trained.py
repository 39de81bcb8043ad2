"""A trained detector from a file: a checkpoint of ours, or torchvision's weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megdet_hvd.checkpoint.file import check_content, is_checkpoint, read_or_offer_another
from megdet_hvd.checkpoint.naming import find_checkpoint
from megdet_hvd.config.auto_resize import with_resizer_of
from megdet_hvd.config.load import config_from_dict
from megdet_hvd.config.named_code import refuse_unasked
from megdet_hvd.config.schema import Config, ModelConfig
from megdet_hvd.data.ids import Id
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.initialise import load_exactly
from megdet_hvd.model.kernels import FORMER, go_on_with
from megdet_hvd.model.own import DetectorFactory, build_own_detector
from megdet_hvd.model.torchvision_io import config_of
from megdet_hvd.model.weights_file import find_weights

COCO_ROWS = 91
"""Outputs of torchvision's published COCO detectors: 80 classes, ten unused ids, background."""
_UNUSED = "N/A"


@dataclass(frozen=True)
class Trained:
    """Weights, and what is needed to use them."""

    path: Path
    """The file."""
    config: Config
    """What it was trained with; of torchvision's weights, the model as the weights show it."""
    categories: tuple[str, ...]
    """Names of labels 1…K; made up (``class 1``) where the file has none."""
    category_ids: tuple[Id, ...]
    """Their ids in annotation files."""
    named: bool
    """Whether the names come from the file or from COCO."""
    state: dict[str, Tensor]
    """Weights, on the CPU."""
    iteration: int | None = None
    """Optimizer steps; None where the file doesn't say."""
    coco: bool = False
    """Whether the names are those that torchvision gives for COCO, ``N/A`` for unused ids."""
    kernels: Mapping[str, str] | None = None
    """What the run began with; None: there was no run of ours."""

    def used(self) -> dict[Id, str]:
        """Category id to name, without COCO's unused ids."""
        pairs = zip(self.category_ids, self.categories, strict=True)
        return {number: name for number, name in pairs if not (self.coco and name == _UNUSED)}

    def build(
        self,
        device: torch.device | None = None,
        model: ModelConfig | None = None,
        own: DetectorFactory | None = None,
    ) -> nn.Module:
        """The detector in evaluation mode; CGBN layers are plain BN, which needs no Horovod.

        Args:
            device: where it shall live; None: on the CPU.
            model: other thresholds than those it was trained with; None: the same.
            own: makes the detector, where ``model.detector`` is one of the user's own. What the
                file names is never looked for here: see
                :func:`megdet_hvd.config.named_code.refuse_unasked`.

        Raises:
            UserError: the weights don't fit ``model``, or it is the user's own and ``own`` is None.
        """
        model = model or self.config.model
        detector: nn.Module
        classes = len(self.categories)
        if own is not None:
            config = self.config.model_copy(update={"model": model})
            detector = build_own_detector(own, config, classes, local_norm(model), pretrained=False)
        elif model.detector is None:
            detector = build_detector(model, classes, local_norm(model), seed=0, pretrained=False)
        else:
            named = model.detector
            refuse_unasked(
                [("model.detector", named)],
                (),
                str(self.path),
                lambda _: f'--detector {named}; in Python, detector="{named}"',
            )
        load_exactly(detector, self.state, str(self.path))
        if self.kernels is not None:
            go_on_with(detector, self.kernels)
        return detector.to(device or torch.device("cpu")).eval()


def read_trained(path: Path, *, norm_eps: float | None = None) -> Trained:
    """Read a checkpoint (or a run folder's latest), or a state dict of torchvision's Faster R-CNN.

    Args:
        path: the file or folder.
        norm_eps: ε of a torchvision model's normalisation, which its weights don't show. None:
            0 for frozen BN with COCO's 91 outputs, as ``FasterRCNN_ResNet50_FPN_Weights.COCO_V1``
            was trained with, else 1e-5.

    Raises:
        UserError: missing, damaged or foreign file, or neither kind of content.
    """
    path = find_checkpoint(path)
    content = read_or_offer_another(path)
    if is_checkpoint(content):
        return _ours(check_content(content, path), path)
    state = find_weights(content, str(path))
    rows = _rows(state)
    if norm_eps is None:
        frozen = not any(name.endswith("num_batches_tracked") for name in state)
        norm_eps = 0.0 if frozen and rows == COCO_ROWS else 1e-5
    config = Config()
    config = config.model_copy(
        update={"model": config_of(state, norm_eps=norm_eps, base=config.model)}
    )
    if rows == COCO_ROWS:
        from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

        names = tuple(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:])
    else:
        names = tuple(f"class {k}" for k in range(1, rows))
    ids = tuple(range(1, rows))
    known = rows == COCO_ROWS
    return Trained(path, config, names, ids, named=known, state=state, coco=known)


def _ours(content: dict[str, Any], path: Path) -> Trained:
    config = config_from_dict(content["config"], origin=f"the configuration in {path}")
    return Trained(
        path=path,
        config=with_resizer_of(content["config"], config),
        categories=tuple(content["categories"]),
        category_ids=tuple(content["category_ids"]),
        named=True,
        state=content["model"],
        iteration=content["iteration"],
        kernels=content.get("kernels", FORMER),
    )


def _rows(state: dict[str, Tensor]) -> int:
    """Outputs of the classifier; 0 where there is none, which ``config_of`` explains."""
    weight = state.get("roi_heads.box_predictor.cls_score.weight")
    return 0 if weight is None else weight.shape[0]
