"""The detector that a run begins with: ours or the user's own, its norm layers, its weights."""

from collections.abc import Sequence

import torch
from torch import nn

from megdet_hvd.checkpoint.naming import find_checkpoint
from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import Config
from megdet_hvd.draws import draw_key
from megdet_hvd.engine.norms import detector_norm
from megdet_hvd.engine.own_code import OwnCode
from megdet_hvd.errors import UserError
from megdet_hvd.job.agree import together
from megdet_hvd.job.world import World
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.initialise import init_from
from megdet_hvd.model.own import DetectorFactory, build_own_detector, replace_norms, try_out
from megdet_hvd.model.pretrained import fetch_backbone_weights


def build_run_detector(
    config: Config,
    own_code: OwnCode,
    classes: Sequence[str],
    world: World,
    device: torch.device,
    *,
    resume: bool,
) -> tuple[nn.Module, list[str] | None, list[str]]:
    """The detector, on the CPU. All ranks call it together.

    Returns:
        It; what it calls its losses, where it is the user's own, else None; and the layers that
        ``model.init_from`` does not fit.

    Raises:
        UserError: on all ranks alike.
    """
    own = own_code.detector
    detector: nn.Module | None = None

    def made_by_user(factory: DetectorFactory) -> nn.Module:
        norm = local_norm(config.model)
        return build_own_detector(factory, config, len(classes), norm, pretrained=not resume)

    with together(world, "backbone weights"):  # not all at once
        if own is not None and world.local_rank == 0:
            detector = made_by_user(own)
        elif not resume and world.local_rank == 0:
            fetch_backbone_weights(config.model)
    losses_of_own: list[str] | None = None
    with together(world, "model"):
        norm = detector_norm(config, world, device)
        if own is None:
            detector = build_detector(
                config.model, len(classes), norm, seed=config.seed, pretrained=not resume
            )
        else:
            detector = detector or made_by_user(own)
            empty = config.data.unreadable_images == "skip"  # it may be all that a process has
            losses_of_own = try_out(detector, config, len(classes), empty=empty)
            replace_norms(detector, config.model, norm)
            torch.manual_seed(draw_key(config.seed, 0, world.rank, 0, "own detector"))
        weights = None if resume else config.model.init_from
        new_layers = [] if weights is None else init_from(detector, weights_file(weights), classes)
    assert detector is not None, "one of the two has made it"
    return detector, losses_of_own, new_layers


def weights_file(wanted: str) -> str:
    """``model.init_from``, where a run folder stands for its latest checkpoint.

    Raises:
        UserError: the folder holds none.
    """
    path = expand_path(wanted, "model.init_from")
    if not path.is_dir():
        return wanted
    try:
        return str(find_checkpoint(path))
    except UserError as error:
        raise UserError(f"model.init_from={error}") from error
