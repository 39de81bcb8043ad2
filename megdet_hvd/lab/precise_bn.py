"""A trained detector measured again with running statistics of its final weights (precise BN).

Running statistics trail behind the weights, and with small BN sizes they are means of noisy ones.
What a detector loses by that alone is harm done to evaluation, not to training. So its statistics
are computed anew, at fixed weights, from training pictures in large batches: the mean over all of
them, and the variance about that mean, from each batch's moments.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megdet_hvd.cli import make_parser, parse
from megdet_hvd.command import leave

if TYPE_CHECKING:
    from torch import nn

    from megdet_hvd.data.batch import Batch

PICTURES, BATCH = 512, 64


def recalibrate(detector: "nn.Module", batches: "Sequence[Batch]") -> None:
    """Set every BN layer's running statistics to those of ``batches``, at the weights it has.

    Each layer sees what it sees in training mode: its own input, with the layers below normalised
    by their batch's statistics. With moments m_i, v_i of batch i (equally large), the mean is
    mean(m_i) and the variance mean(v_i + m_i²) − mean². The detector is in evaluation mode
    afterwards.
    """
    import torch
    from torch import nn

    layers = [m for m in detector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    sums = {layer: [torch.zeros(layer.num_features).double() for _ in "mv"] for layer in layers}
    momenta = {layer: layer.momentum for layer in layers}
    detector.train()
    for layer in layers:
        layer.momentum = 1.0  # the running statistics are then those of the newest batch
    with torch.no_grad():
        for batch in batches:
            detector(batch)
            for layer in layers:
                assert layer.running_mean is not None and layer.running_var is not None
                mean = layer.running_mean.double()
                sums[layer][0] += mean
                sums[layer][1] += layer.running_var.double() + mean**2
        for layer, (means, squares) in sums.items():
            assert layer.running_mean is not None and layer.running_var is not None
            mean = means / len(batches)
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(squares / len(batches) - mean**2)
            layer.momentum = momenta[layer]
    detector.eval()


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m megdet_hvd.lab.precise_bn --run FOLDER --out FILE``."""
    parser = make_parser(
        "megdet_hvd.lab.precise_bn", (__doc__ or "").split("\n")[0], settings=False
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run")
    parser.add_argument("--out", type=Path, required=True, help="its scores, JSON")
    options = parse(parser, argv)
    from megdet_hvd.data.factory import open_datasets
    from megdet_hvd.evaluation.evaluate import evaluate_detector
    from megdet_hvd.evaluation.trained import read_trained
    from megdet_hvd.job.world import World
    from megdet_hvd.lab.stream import training_batches

    trained = read_trained(options.run)
    config = trained.config
    data = open_datasets(config.data, is_main=True, wait=lambda: None)
    detector = trained.build()
    batches = training_batches(data.train, config, BATCH, max(1, PICTURES // BATCH))
    recalibrate(detector, batches)
    assert data.val is not None
    world = World(rank=0, size=1, machines=((0,),), cores=1)
    result = evaluate_detector(detector, data.val, config, world).result
    scores = {"pictures": sum(map(len, batches)), "AP": result.ap, "AP50": result.ap50}
    options.out.write_text(json.dumps(scores) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    leave(main)
