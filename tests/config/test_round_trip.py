"""What is written out reads back as equal, whatever the values."""

import json
import random
from pathlib import Path
from typing import Any

from megdet_hvd.config.keys import groups, valid_keys
from megdet_hvd.config.load import config_from_dict, config_to_dict, load_config, to_yaml
from megdet_hvd.config.schema import Config, Section


def random_value(kind: str, draw: random.Random) -> Any:
    """A value that fits a type in words, such as "whole number > 0 or auto"."""
    branch = draw.choice(kind.split(" or ")) if kind != "true or false" else kind
    if branch == "true or false":
        return draw.random() < 0.5
    if branch == "null":
        return None
    if branch == "module:name":
        return draw.choice(["mine:build", "mine.parts:Kind.make"])
    if branch == "text":
        return draw.choice(
            ["on", "1e-4", "010", "null", "~", "a: b", "#x", "é ü", "'", "true", "-"]
        )
    if branch.startswith("whole number"):
        return draw.randrange(64, 1000) if "64" in branch else draw.randrange(1, 5)
    if branch.startswith("number"):
        return draw.choice([1, 0.1, 1e-5, draw.random()])
    return branch


def random_config(draw: random.Random) -> Config:
    tree: dict[str, Any] = {}
    for group in groups():
        at = tree
        for name in filter(None, group.path.split(".")):
            at = at.setdefault(name, {})
        for key in group.keys:
            plain_kind = not key.kind.startswith("list") and key.path not in NOT_FREE
            if plain_kind and draw.random() < 0.5:
                at[key.path.rpartition(".")[2]] = random_value(key.kind, draw)
    tree["global_batch"] = 4 * tree["learning"].get("accumulation", 1)
    return config_from_dict(tree)


NOT_FREE = {
    "bn.size",
    "data.dataset",
    "data.kind",
    "learning.policy",
    "learning.epochs",
    "learning.warmup_images",
    "model.rpn.foreground_iou",
    "model.rpn.background_iou",
    "pipeline.max_side",
}
"""Keys that other keys must fit."""


def test_random_configurations_come_back_equal(tmp_path: Path) -> None:
    draw = random.Random(0)
    changed: set[str] = set()
    for _ in range(30):
        found = random_config(draw)
        file = tmp_path / "run.yaml"
        file.write_text(to_yaml(found), encoding="utf-8")
        assert load_config(file) == found
        assert to_yaml(load_config(file)) == to_yaml(found)
        stored = json.loads(json.dumps(config_to_dict(found)))
        assert config_from_dict(stored) == found
        changed |= {key for key in valid_keys() if value_at(found, key) != value_at(Config(), key)}
    assert len(changed) > 50


def value_at(found: Section, key: str) -> Any:
    at: Any = found
    for name in key.split("."):
        at = getattr(at, name)
    return at


def test_the_resolved_text_has_every_key() -> None:
    tree = config_to_dict(load_config(None))
    for key in valid_keys():
        at: Any = tree
        for name in key.split("."):
            at = at[name]
