"""ImageNet weights for the backbone, by torchvision's name or from a local file."""

import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.errors import UserError
from megdet_hvd.model.fit import align_counters, find_misfit, refuse
from megdet_hvd.model.weights_file import read_weights
from megdet_hvd.storage import FULL, as_storage_error, cannot_keep

CONNECT_TIMEOUT_S = 30.0
"""A cluster node without network often drops packets silently; give up after this long."""


def load_backbone_weights(body: nn.Module, config: ModelConfig) -> None:
    """Fill the residual network ``body`` from ``config.backbone_weights``.

    A name (``IMAGENET1K_V1``, ``ResNet50_Weights.IMAGENET1K_V2``, ``DEFAULT``) is looked up in
    PyTorch's own cache folder and downloaded where that fails. Anything else is a local file: a
    classifier of torchvision, or a detector, whose backbone is taken.

    Raises:
        UserError: unknown name, no such file, no network, or weights that don't fit.
    """
    wanted = config.backbone_weights
    assert wanted is not None
    entry = named_weights(config.backbone, wanted)
    source = f"model.backbone_weights={wanted}"
    if entry is not None:
        state = _fetch(entry, source)
    else:
        setting = "model.backbone_weights"
        state = read_weights(expand_path(wanted, setting), setting)
    state = align_counters(body_part(state), body)
    misfit = find_misfit(state, body)
    if misfit:
        fix = f"give weights of a {config.backbone}, or set model.backbone to what they are of"
        if config.norm == "none" and not (misfit.missing or misfit.reshaped):
            fix = "these weights need their BN layers; set model.norm=frozen, or cgbn"
        raise refuse(misfit, state, body, source, fix)
    body.load_state_dict(state)


def fetch_backbone_weights(config: ModelConfig) -> None:
    """Have weights that are given by name in PyTorch's cache folder; one process of a machine does.

    Raises:
        UserError: unknown name, or no network.
    """
    wanted = config.backbone_weights
    if wanted is not None and (entry := named_weights(config.backbone, wanted)) is not None:
        _fetch(entry, f"model.backbone_weights={wanted}")


def named_weights(backbone: str, wanted: str) -> WeightsEnum | None:
    """The entry of that name in torchvision; None where ``wanted`` is a path.

    Raises:
        UserError: neither a known name nor anything like a path.
    """
    family = get_model_weights(backbone)
    name = wanted.removeprefix(f"{family.__name__}.")
    if name in family.__members__:
        return family[name]
    if Path(wanted).exists() or any(mark in wanted for mark in "/.~$"):
        return None
    known = ", ".join(family.__members__)
    raise UserError(
        f"model.backbone_weights={wanted}: torchvision's names for {backbone} are {known}; "
        "anything else must be the path of a weights file"
    )


def body_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's weights without its last layer, or the residual network of a detector."""
    prefix = "backbone.body."
    if any(name.startswith(prefix) for name in state):
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v for k, v in state.items() if not k.startswith("fc.")}


def _fetch(entry: WeightsEnum, source: str) -> Mapping[str, Tensor]:
    try:
        with _connect_timeout(CONNECT_TIMEOUT_S):
            # A file in the cache is not compared with anything, and others may fill the cache.
            state: dict[str, Tensor] = entry.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
            return state
    except pickle.UnpicklingError as e:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"{source}: {folder / Path(entry.url).name} holds more than weights "
            f"({str(e).splitlines()[0][:200]}), which torchvision's file does not; remove it, and "
            "it is downloaded again"
        ) from e
    except (URLError, OSError, RuntimeError) as e:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        if isinstance(e, OSError) and e.errno in FULL:
            fix = "point TORCH_HOME at another place"
            raise cannot_keep(f"{folder}: {source} can't be kept there", e, fix) from e
        if (known := as_storage_error(e)) is not e:
            raise known from e
        raise UserError(
            f"{source}: {Path(entry.url).name} is not in {folder} and could not be downloaded "
            f"({e}). Either run `python -m megdet_hvd.data fetch backbone` where there is a "
            "network and this folder is visible, or copy the file here and set "
            "model.backbone_weights=FILE"
        ) from e


@contextmanager
def _connect_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
