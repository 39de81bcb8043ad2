"""When gradients go, and what the log says of it."""

import pytest

from megdet_hvd.config.gradient_order import gradient_order
from megdet_hvd.config.load import load_config


@pytest.mark.parametrize(
    ("settings", "shared", "held", "told"),
    [
        ((), True, True, "no BN sum waits behind one (bn.carrier=horovod)"),
        ((), False, False, "no BN sum could wait behind one"),
        (("model.norm=frozen",), False, False, "no BN sum could wait behind one"),
        (("bn.carrier=mpi",), True, False, "BN sums go past Horovod (bn.carrier=mpi)"),
        (
            ("bn.carrier=peer", "horovod.gradients=as_ready"),
            True,
            True,
            "no BN sum on the GPUs waits beside one (bn.carrier=peer)",
        ),
        (("bn.carrier=peer",), False, False, "no BN sum could wait behind one"),
        (("horovod.gradients=as_ready",), True, False, "horovod.gradients=as_ready"),
        (("horovod.gradients=held",), False, True, "horovod.gradients=held"),
        (("deterministic=true",), False, True, "deterministic=true"),
        (
            ("deterministic=true", "horovod.gradients=as_ready"),
            False,
            True,
            "deterministic=true",
        ),
    ],
)
def test_gradients_are_held_where_a_bn_sum_could_wait_behind_them(
    settings: tuple[str, ...], shared: bool, held: bool, told: str
) -> None:
    found = gradient_order(load_config(None, [*settings]), shared)
    assert found == (held, told)
    when = "once all are" if held else "as each is"
    assert str(found) == f"gradients go {when} ready: {told}"
