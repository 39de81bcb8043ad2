"""Which checkpoint is the best: the mmAP that ``best.pt`` itself was measured with."""

import math

from megdet_hvd.checkpoint.facts import read_facts
from megdet_hvd.checkpoint.naming import BEST
from megdet_hvd.checkpoint.zip_check import DamagedFileError
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.engine.run_folder.metrics import lines_so_far
from megdet_hvd.errors import StorageError, UserError


def is_better(ap: float | None, best: float | None) -> bool:
    """Whether a measured mmAP beats the best so far; one that is not a number beats nothing."""
    return ap is not None and not math.isnan(ap) and (best is None or ap > best)


def best_ap_of(folder: RunFolder, recorded: float | None) -> float | None:
    """The mmAP of the run's ``best.pt``; None: there is none, so the next is the best.

    The file says it where it was measured before it was written, else the metrics do, by its
    iteration. ``recorded``: what the checkpoint to carry on from says, should both be silent: it
    may have been written just before ``best.pt`` could not be.
    """
    best = folder.checkpoints / BEST
    try:
        if not best.exists():
            return None
        facts = read_facts(best)
    except (UserError, StorageError, DamagedFileError, OSError):
        return recorded
    if isinstance(facts.get("ap"), float):
        return float(facts["ap"])
    measured = {line["iteration"]: line.get("AP") for line in lines_so_far(folder.metrics).eval}
    found = measured.get(facts.get("iteration"))
    return recorded if found is None else float(found)
