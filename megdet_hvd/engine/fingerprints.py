"""What a run's numbers belong to: its training pictures, and the way it is measured.

Kept in each checkpoint, so that a resumed run neither goes through other pictures under the old
positions, nor compares an mmAP with one of other pictures or settings.
"""

import hashlib
import json
from typing import Any

import numpy as np

from megdet_hvd.config.load import config_to_dict
from megdet_hvd.config.resume_rules import RULES, at_path
from megdet_hvd.config.schema import Config
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.loader import eval_transform
from megdet_hvd.data.resizing import resizer_of

_SEEN_OTHERWISE = (
    "data.kind",
    "data.dataset",
    "data.val",
    "data.scenes.val_images",
    "data.invalid_boxes",
    "data.min_sizes",
    "data.eval_min_size",
    "data.resize",
)
"""Settings that mmAP depends on through the pictures and what is done to them: looked at below."""


def order_of_pictures(index: ImageIndex) -> str:
    """The same for the same training pictures in the same order, wherever their files lie."""
    return _digest(index.sources.tolist(), index.image_ids.tolist())


def boxes_digest(index: ImageIndex) -> str:
    """The same for the same boxes of the same classes in the training pictures."""
    digest = hashlib.sha256()
    for values in (index.offsets, index.labels, index.crowds, index.learnable, index.raw_boxes):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def measure(config: Config, val: ImageIndex | None) -> str | None:
    """The same where two mmAPs are comparable; None: nothing is measured.

    Pictures, boxes and classes of the validation data count, not where the files lie.
    """
    if val is None:
        return None
    tree = config_to_dict(config)
    # Former versions had Pillow alone, and did not say so.
    resizer = () if resizer_of(config.data.resize) == "pillow" else ("torch",)
    keys = [key for key, rule in RULES.items() if rule.measures and key not in _SEEN_OTHERWISE]
    return _digest(
        {key: at_path(tree, key) for key in keys},
        eval_transform(config.data).min_size,
        *resizer,
        val.categories,
        val.image_ids.tolist(),
        val.offsets.tolist(),
        val.raw_boxes.tolist(),
        val.labels.tolist(),
        val.crowds.tolist(),
        val.areas.tolist(),
    )


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
