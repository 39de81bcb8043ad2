"""A pretrained backbone for every row of a seed: ResNet-18 taught to tell crops apart, plain BN.

The paper starts from ImageNet weights. From random ones frozen BN would be a straw man: nothing
keeps its activations in range. So each seed teaches a backbone of its own, and all of that seed's
rows start from it.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.command import leave
from megdet_hvd.errors import UserError
from megdet_hvd.lab.scale import LabScale

if TYPE_CHECKING:
    from torch import Tensor, nn

    from megdet_hvd.lab.crops import Crops

BACKBONE_SETTING = "model.backbone_weights"
"""Where a training is told of the file."""
THREADS = 2
"""Of torch, whatever the machine has: sums in another order give other bits, and a seed's rows must
start from the same."""
BATCH, PEAK_RATE, MOMENTUM, WEIGHT_DECAY = 64, 0.1, 0.9, 5e-4
WARM_SHARE = 0.1
"""Share of the updates in which the rate rises; then it falls as a half cosine."""
HELD_OUT = 200
"""Scenes whose crops the accuracy is measured on."""
SEED_STRIDE = 1_000_000
"""Scene numbers between two seeds."""


def teach_backbone(
    file: Path, *, seed: int, side: int, scenes: int, epochs: float, held_out: int = HELD_OUT
) -> dict[str, Any]:
    """Teach, and write torchvision's state dict of a ResNet-18 to ``file``.

    Args:
        file: where ``model.backbone_weights`` will find it; written whole or not at all.
        seed: of weights, scenes and order.
        side: longer side of the scenes, pixels.
        scenes: how many crops are cut from.
        epochs: passes over the crops.
        held_out: scenes whose crops are not taught, and measured on.

    Returns:
        Digest of the weights, accuracy on the held-out crops, number of crops and updates, seconds.
    """
    import io

    import numpy as np
    import torch
    from torchvision.models import resnet18

    from megdet_hvd.lab.crops import CROP_CLASSES, make_crops

    began = time.monotonic()
    crops = make_crops("crops", seed * SEED_STRIDE, scenes, side)
    unseen = make_crops("held out", seed * SEED_STRIDE, held_out, side)
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    model = resnet18(num_classes=len(CROP_CLASSES))
    optimizer = torch.optim.SGD(
        model.parameters(), PEAK_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    updates = max(1, round(epochs * len(crops.labels) / BATCH))
    random = np.random.Generator(np.random.PCG64([seed, 1]))
    model.train()
    for update in range(updates):
        chosen = random.choice(len(crops.labels), min(BATCH, len(crops.labels)), replace=False)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(update, updates)
        pictures, labels = _batch(crops, chosen, flip=random.random(len(chosen)) < 0.5)
        loss = torch.nn.functional.cross_entropy(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % 100 == 0 or update == updates - 1:
            print(f"backbone {seed}: update {update + 1} of {updates}, loss {loss:.3f}", flush=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, buffer.getvalue())
    return {
        "digest": weights_digest(state),
        "accuracy": accuracy(model, unseen),
        "crops": len(crops.labels),
        "updates": updates,
        "clock_s": round(time.monotonic() - began, 1),
    }


def rate_at(update: int, updates: int) -> float:
    """The learning rate of an update, counted from 0."""
    warm = max(1, round(WARM_SHARE * updates))
    if update < warm:
        return PEAK_RATE * (update + 1) / warm
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (update - warm) / max(1, updates - warm)))


def _batch(crops: "Crops", chosen: Any, flip: Any) -> "tuple[Tensor, Tensor]":
    """Pictures normalised as the detector normalises them, (b, 3, 64, 64), and labels (b,)."""
    import torch

    from megdet_hvd.model.normalise import IMAGENET_MEAN, IMAGENET_STD

    pictures = torch.from_numpy(crops.pictures[chosen]).float() / 255
    turned = torch.from_numpy(flip)
    pictures[turned] = pictures[turned].flip(-1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures - mean) / std, torch.from_numpy(crops.labels[chosen])


def accuracy(model: "nn.Module", crops: "Crops") -> float:
    """Share of crops whose class is found; the model is in evaluation mode afterwards."""
    import numpy as np
    import torch

    model.eval()
    right = 0
    with torch.inference_mode():
        for places in np.array_split(
            np.arange(len(crops.labels)), max(1, len(crops.labels) // 256)
        ):
            pictures, labels = _batch(crops, places, np.zeros(len(places), bool))
            right += int((model(pictures).argmax(1) == labels).sum())
    return right / len(crops.labels)


def weights_digest(state: "dict[str, Tensor]") -> str:
    """Of names and bytes of all weights and statistics; 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def backbone_facts(facts: Path, file: Path) -> dict[str, Any]:
    """What was noted of a backbone, whose file is looked at again.

    Raises:
        UserError: the file is damaged, or another one.
    """
    from megdet_hvd.model.weights_file import read_weights

    remedy = f"remove {facts} and {file.name} beside it, and the backbone is taught again"
    try:
        found: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
        noted = found["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{facts} says nothing of a backbone ({error!r}); {remedy}") from error
    digest = weights_digest(dict(read_weights(file, BACKBONE_SETTING)))
    if digest != noted:
        raise UserError(
            f"{file} is not the backbone that {facts} tells of ({digest}, not {noted}); {remedy}"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m megdet_hvd.lab.backbone``: what :mod:`megdet_hvd.lab` starts for each seed."""
    parser = make_parser("megdet_hvd.lab.backbone", (__doc__ or "").split("\n")[0], settings=False)
    parser.add_argument("--out", type=Path, required=True, help="the weights file")
    parser.add_argument("--facts", type=Path, required=True, help="what is known of it, JSON")
    for name, kind in (("seed", int), ("side", int), ("scenes", int), ("epochs", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parse(parser, argv)
    facts = teach_backbone(
        options.out,
        seed=options.seed,
        side=options.side,
        scenes=options.scenes,
        epochs=options.epochs,
    )
    text = json.dumps(facts, indent=1) + "\n"
    write_bytes(options.facts, text.encode())
    return 0


def backbone_command(file: Path, facts: Path, scale: LabScale, seed: int) -> list[str]:
    """The module and its words that teach the backbone of a seed."""
    return [
        "megdet_hvd.lab.backbone",
        *("--out", str(file), "--facts", str(facts), "--seed", str(seed)),
        *("--side", str(scale.side), "--scenes", str(scale.crop_scenes)),
        *("--epochs", str(scale.crop_epochs)),
    ]


if __name__ == "__main__":
    leave(main)
