"""A network card for each process of a machine, where the site names them.

NCCL and UCX choose the nearest of all cards themselves. Where they choose badly, or must not share,
``SITE_NETWORK_CARDS`` names one for each local rank; it is set before either starts.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from megdet_hvd.cluster.driver_variables import NETWORK_CARDS
from megdet_hvd.cluster.launch import Launch
from megdet_hvd.errors import UserError

DEVICES = Path("/sys/class/infiniband")
"""Where Linux lists the cards of a machine."""
_NCCL, _UCX = "NCCL_IB_HCA", "UCX_NET_DEVICES"


def check_count(cards: Sequence[str], tasks_per_node: int) -> None:
    """Raises UserError: there is not one for each process of a node."""
    if cards and len(cards) != tasks_per_node:
        raise UserError(
            f"SITE_NETWORK_CARDS names {len(cards)} cards for {tasks_per_node} processes on each "
            "node; name one for each local rank, in order (a card that several share stands there "
            "several times), or leave it empty"
        )


def card_of(launch: Launch, environ: Mapping[str, str]) -> str | None:
    """This process's card, ``mlx5_0`` or ``mlx5_0:1``; None: none is named for it."""
    cards = environ.get(NETWORK_CARDS, "").split()
    if launch.local_rank is None or launch.local_rank >= len(cards):
        return None
    return cards[launch.local_rank]


def use_network_card(launch: Launch, environ: MutableMapping[str, str]) -> None:
    """Set it for NCCL and UCX, before they start; what the user has set stands."""
    card = card_of(launch, environ)
    if card is None:
        return
    environ.setdefault(_NCCL, f"={card}")  # NCCL takes a bare name for the beginning of one
    environ.setdefault(_UCX, card if ":" in card else f"{card}:1")


def missing_card(launch: Launch, environ: Mapping[str, str], devices: Path = DEVICES) -> str | None:
    """Why this process can't use its card; None: it can, or nobody knows. NCCL would use TCP."""
    card = card_of(launch, environ)
    name = None if card is None else card.partition(":")[0]
    try:
        there = sorted(path.name for path in devices.iterdir())
    except OSError:
        return None
    if name is None or name in there:
        return None
    return (
        f"SITE_NETWORK_CARDS names {name} for local rank {launch.local_rank}, and this machine has "
        f"{', '.join(there) or 'none'}; NCCL would go by TCP"
    )
