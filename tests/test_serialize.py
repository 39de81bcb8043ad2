"""What travels arrives as it was; what does not is an error at the sender; nothing runs."""

import json
import math
import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megdet_hvd.config.load import config_from_dict
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import MemberError, RunError, StorageError, UserError
from megdet_hvd.serialize import Garbled, NotSerializable, dumps, loads, serializable


@serializable
@dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    b: tuple[str, ...]


@serializable
@dataclass
class Plain:
    a: Any
    b: Slotted | None = None


@dataclass
class Stranger:
    a: int


@serializable
class Private:
    def __init__(self, a: int) -> None:
        raise AssertionError("not where it arrives")


VALUES: list[Any] = [
    None,
    True,
    7,
    10**40,
    0.1,
    -math.inf,
    "é \udcff \u2028",
    b"\0\xff",
    bytearray(b"x"),
    [],
    (),
    (1, [2, (3,)]),
    {"a": 1, 2: (3,), (4, 5): None},
    {1, 2},
    frozenset({3}),
    Path("/a/ü b"),
    {"tuple": [1]},
    Plain({"x": Slotted(1, ("y",))}, Slotted(2, ())),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_arrive_as_they_were(value: Any) -> None:
    arrived = loads(dumps(value))
    assert arrived == value and type(arrived) is type(value)
    assert repr(arrived) == repr(value)


def test_nan() -> None:
    assert math.isnan(loads(dumps([float("nan")]))[0])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).reshape(2, 3).t(),
        torch.rand(3, 1, 2).bfloat16(),
        torch.rand(4)[::2],
        torch.tensor(True),
        torch.zeros(0, 4),
        torch.get_rng_state(),
        torch.rand(3, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)
def test_tensors(tensor: torch.Tensor) -> None:
    arrived = loads(dumps({"x": [1, tensor]}))["x"][1]
    assert arrived.dtype == tensor.dtype and torch.equal(arrived, tensor.detach())
    arrived.zero_()  # memory of its own


def test_arrays_and_numpys_numbers() -> None:
    for array in (np.arange(6.0)[::2], np.zeros((0, 3), np.int32), np.asarray(4, np.uint8)):
        arrived = loads(dumps((array,)))[0]
        assert arrived.dtype == array.dtype and arrived.shape == array.shape
        assert np.array_equal(arrived, array) and arrived.flags.writeable
    for number in (np.float64(0.1), np.int64(-3), np.bool_(True), np.float32(2)):
        assert type(loads(dumps(number))) is type(number) and loads(dumps(number)) == number


def test_configurations() -> None:
    config = config_from_dict(
        {"global_batch": 32, "learning": {"momentum": 0.8}, "bn": {"size": 4}}
    )
    arrived = loads(dumps({"config": config}))["config"]
    assert arrived == config and type(arrived) is Config
    assert arrived.model_fields_set == config.model_fields_set == {"global_batch", "learning", "bn"}
    assert arrived.learning.model_fields_set == {"momentum"}


@pytest.mark.parametrize("kind", [UserError, RunError, StorageError])
def test_errors_keep_their_class(kind: type[Exception]) -> None:
    error = kind("x: the rule; the fix")
    assert type(loads(dumps(error))) is kind and str(loads(dumps(error))) == str(error)
    assert not hasattr(loads(dumps(error)), "agreed")
    error.agreed = True  # type: ignore[attr-defined]
    assert loads(dumps(error)).agreed is True


def test_errors_of_other_members() -> None:
    arrived = loads(dumps(MemberError(3, "KeyError", "'x'")))
    assert type(arrived) is MemberError
    assert (arrived.rank, arrived.kind, arrived.text) == (3, "KeyError", "'x'")
    assert str(arrived) == "rank 3 failed: KeyError: 'x'"


def cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, Stranger(1)]}, r"the value\['a'\]\[1\] is a .*Stranger"),
        (Stranger, "is a builtins.type"),
        (len, "builtin_function"),
        (OrderedDict(), "OrderedDict"),
        (ZeroDivisionError("x"), "ZeroDivisionError, a fault"),
        (np.asarray(["x"]), "not of numbers"),
        (np.asarray([Stranger(1)]), "not of numbers"),
        (torch.nn.Parameter(torch.zeros(1)), "Parameter"),
        (torch.eye(2).to_sparse(), "sparse"),
        (cycle(), "more than 100 values"),
        (range(3), "range"),
    ],
)
def test_anything_else_is_an_error_at_the_sender(value: Any, told: str) -> None:
    with pytest.raises(NotSerializable, match=told):
        dumps(value)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def forged(value: Any, *classes: Any) -> bytes:
    text = json.dumps({"value": value, "classes": classes}).encode()
    return len(text).to_bytes(8, "big") + text


NAME = f"{__name__}:Plain"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        pickle.dumps(Evil()),
        (3000).to_bytes(8, "big") + b"[" * 3000,
        (2**63).to_bytes(8, "big") + b"1",
        forged({"what": 1}),
        forged({"tuple": 1}),
        forged({"tuple": [], "set": []}),
        forged({"object": [0]}),
        forged({"object": [0, "x"]}, ["os:system", ["x"]]),
        forged({"object": [0, "x"]}, ["subprocess:Popen", ["args"]]),
        forged({"object": [0, 1]}, [f"{__name__}:Stranger", ["a"]]),
        forged({"object": [0, 1]}, ["megdet_hvd.errors:UserError", ["a"]]),
        forged({"object": [0, 1]}, ["megdet_hvd.train.__main__:Plan", ["a"]]),
        forged({"object": [0, 1]}, ["megdet_hvd.no_such:Plan", ["a"]]),
        forged({"object": [0, 1]}, ["antigravity:Plan", ["a"]]),
        forged({"object": [0, 1]}, [NAME, ["a"]]),
        forged({"object": [0, 1, 2]}, [NAME, ["a", "__class__"]]),
        forged({"error": ["SystemExit", False]}),
        forged({"error": ["MemberError", False, "x"]}),
        forged({"array": ["|O", [1], 0, 8]}),
        forged({"array": ["<f8", [1], 0, 8]}),
        forged({"array": ["<f8", [1], -8, 8]}),
        forged({"tensor": ["save", [1], 0, 0]}),
        forged({"tensor": ["float32", [2**62], 0, 0]}),
    ],
    ids=lambda content: repr(content[:60]),
)
def test_other_bytes_run_nothing(content: bytes) -> None:
    with pytest.raises(Garbled):
        loads(content)


def test_no_init_runs_where_it_arrives() -> None:
    made = Private.__new__(Private)
    made.a = 5  # type: ignore[attr-defined]
    assert vars(loads(dumps(made))) == {"a": 5}


def test_cut_and_changed_bytes_are_garbled_or_another_value() -> None:
    content = dumps({"a": torch.arange(100), "b": [Plain(1), "x"]})
    for end in range(0, len(content) - 64, 7):
        with pytest.raises(Garbled):
            loads(content[:end])
    for at in range(0, len(content), 3):
        changed = bytearray(content)
        changed[at] ^= 0x15
        try:
            loads(changed)
        except Garbled:
            continue


def sent_by_the_package() -> list[Any]:
    """One of each class that travels, and of the larger things."""
    from megdet_hvd.comm.mpi_sums import SumsState
    from megdet_hvd.config.saved_layout import SavedLayout
    from megdet_hvd.data.problems import Problem
    from megdet_hvd.engine.result import TrainResult
    from megdet_hvd.engine.resumption import Resumption
    from megdet_hvd.evaluation.coco_ap import STATS, CocoResult
    from megdet_hvd.job.members_ending import Ending
    from megdet_hvd.job.session import Met, _Told
    from megdet_hvd.job.watch.identity import own_identity
    from megdet_hvd.job.watch.start import _Meeting
    from megdet_hvd.preflight.facts import gather_facts
    from megdet_hvd.train import TrainingPlan

    config = Config()
    before = SavedLayout(16, 2, 1, "cgbn", (4, 8))
    resumption = Resumption(config, {"bn.size"}, before)
    plan = TrainingPlan(config, Path("a.yaml"), Path("runs/x"), resumption, None, ("seed=1",))
    result = TrainResult(
        Path("runs/x"), 3, 0.5, None, 0.1, 0.2, Path("a.pt"), None, ({"AP": None, "n": [1]},)
    )
    stats: dict[str, float | None] = dict.fromkeys(STATS, 0.5)
    return [
        (plan, None),
        (None, UserError("x")),
        _Told(("host", "boot"), frozenset({0, 1}), gather_facts(config), None),
        (own_identity("h"), _Meeting(60.0, ("127.0.0.1",), 5, "secret")),
        ("end", Ending("failed", "KeyError", "'x'", result, (0, 1), SumsState(3, 8, "<f8"))),
        CocoResult(stats, {"a": None}, 3, 4),
        [Problem("kind", "file", "where")],
        Met(((0, 1), (2,)), (4, 8), ("n1", "n2")),
    ]


@pytest.mark.parametrize("number", range(8))
def test_what_the_package_sends(number: int) -> None:
    value = sent_by_the_package()[number]
    arrived = loads(dumps(value))
    if number == 0:  # compared by their parts: it is no dataclass
        (plan, _), (sent, _) = arrived, value
        assert vars(plan.resumption) == vars(sent.resumption)
        assert plan.config == sent.config and plan.words == sent.words
    elif number == 1:
        assert str(arrived[1]) == "x" and type(arrived[1]) is UserError
    else:
        assert arrived == value


def test_a_checkpoints_state() -> None:
    """As rank 0 reads and sends it: nested, with integer keys, and with tensors."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scaler = torch.amp.GradScaler("cpu")
    state = {
        "model": {name: value.detach() for name, value in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": [{"cpu": torch.get_rng_state()}],
        "ap": None,
    }
    arrived = loads(dumps(state))
    assert repr(arrived) == repr(state)
    other = torch.optim.SGD(torch.nn.Linear(3, 2).parameters(), lr=0.5)
    other.load_state_dict(arrived["optimizer"])
    assert repr(other.state_dict()) == repr(optimizer.state_dict())
