"""What a run is carried on with, before any process starts."""

from megdet_hvd.config.before import Before
from megdet_hvd.config.load import load_config
from megdet_hvd.engine.resumption import Resumption


def test_a_batch_is_cut_anew_unless_it_was_given() -> None:
    config = load_config(None, ["global_batch=8"])
    # Two machines of 2 ranks before, one of 4 now: bn.size=4 keeps the BN size.
    resumption = Resumption(config, (), Before(8, 4, 1, "cgbn", (4,)))
    assert resumption.refit((range(4),)).config.bn.size == 4
    given = Resumption(config, ("bn.size",), Before(8, 4, 1, "cgbn", (4,)))
    assert given.refit(((0, 1, 2, 3),)).config.bn.size is None, "what was given still stands"
