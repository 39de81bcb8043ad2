"""The embedded default: what a run without ``--config`` changes in the schema's own values.

The schema's values are the paper's: ResNet-50, 800/1333 pixels, *normal* policy. The embedded
default trains on rendered scenes in minutes on two CPU cores, so it is slim and its pictures are
small. It lives here and not only in a file because an installed package has no ``configs/``;
``configs/scenes.yaml`` says the same, and a test holds the two equal.
"""

from typing import Any

EMBEDDED: dict[str, Any] = {
    "global_batch": 8,
    "data": {
        "kind": "scenes",
        "scenes": {"train_images": 1200, "val_images": 200, "size": 160},
        "min_sizes": [128],
        "max_size": 320,
    },
    "model": {
        "backbone": "resnet18",
        "norm": "cgbn",
        "fpn_channels": 64,
        "anchor_sizes": [12, 24, 48, 96, 192],
        "rpn": {
            "pre_nms_train": 300,
            "pre_nms_test": 300,
            "post_nms_train": 150,
            "post_nms_test": 150,
        },
        "roi": {"width": 128, "boxes_per_image": 64},
    },
    "learning": {
        "policy": "custom",
        "milestones": [{"epoch": 3, "factor": 0.1}, {"epoch": 3.7, "factor": 0.1}],
        "epochs": 4,
    },
    "evaluation": {"untrained": True},
}


def embedded_value(path: str) -> Any:
    """The embedded run's value of a setting by its dotted name; ``...``: the schema's."""
    value: Any = EMBEDDED
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return ...
        value = value[part]
    return value
