"""What a GPU with its software takes, and what connects machines: built in, or measured by bench.

data/gpus.toml and data/networks.toml have the built-in ones; ``python -m megdet_hvd.bench profile``
writes a file of the same fields. Every number says where it is from.
"""

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from megdet_hvd.data.problems import printable
from megdet_hvd.errors import UserError
from megdet_hvd.plan.collectives import Fabric, Link
from megdet_hvd.plan.compute import Compute, TimedStep, from_one, from_two
from megdet_hvd.plan.fit import Shared
from megdet_hvd.plan.horovod_costs import BLOCKING_SUM_US
from megdet_hvd.plan.published import DATA
from megdet_hvd.plan.sourced import Sourced, read_sourced
from megdet_hvd.plan.stragglers import LATE_TO_EARLY
from megdet_hvd.storage import cannot_read, is_transient, retried

Backbone = Literal["resnet18", "resnet50", "resnet101"]
"""As ``model.backbone``."""
ADAPTERS = 8
"""The most network adapters that a machine may be given."""
MOST_PIXELS = 1_000_000
"""Of a side; more is no picture's."""
_NETWORK = re.compile(r"(?:([0-9]{1,3})x)?([a-z0-9]+)")
_LINKS = ("nvlink", "pci")
_PRECISIONS = ("float32", "bfloat16", "float16")
_NORMS = ("frozen", "cgbn")


@dataclass(frozen=True)
class KnownStep:
    """A step that was timed."""

    images: int
    """Of one GPU."""
    gpus: int
    seconds: Sourced
    early: bool = False
    """Among the first steps of a run, which are quicker than later ones."""

    @property
    def late_s(self) -> float:
        """Seconds of such a step late in a run."""
        return self.seconds.value * (LATE_TO_EARLY if self.early else 1.0)


@dataclass(frozen=True)
class Profile:
    """A GPU, its machine's inside, and a software stack on it."""

    name: str
    about: str
    precision: str
    norm: str
    """``frozen``: the timed steps had frozen BN. ``cgbn``: its own work, without messages, is in
    them."""
    link: Link
    network: str
    """Where the command line names none."""
    memory_gib: Sourced
    memory_gb_s: Sourced
    inside_gb_s: Sourced
    model_factor: Sourced
    """Times the timed steps: a Faster R-CNN's of this project."""
    inference_s: Sourced
    steps: tuple[KnownStep, ...]
    backbone: Backbone = "resnet50"
    frozen_stages: int = 0
    """As ``model.frozen_stages``, in the timed steps."""
    min_sizes: tuple[int, ...] = (800,)
    """As ``data.min_sizes``, in the timed steps; one picture in evaluation was of the largest."""
    max_size: int = 1333
    bfloat16: bool | None = None
    """Whether the GPU has it, which decides what ``precision=auto`` is; None: not known."""
    blocking_sum_us: tuple[tuple[float, float], ...] = BLOCKING_SUM_US
    waits_from: str = "measured here, 2 processes without a GPU"

    @property
    def value_bytes(self) -> int:
        """Of an activation."""
        return 4 if self.precision == "float32" else 2

    def compute(self, shared: Shared) -> Compute:
        """Slope and overhead of the timed steps: exactly of two, with the shared n₀ of one.

        Where two say that a step without images takes less than no time, the larger alone counts,
        without overhead: fewer images would else be predicted to take none.
        """
        factor = self.model_factor.value
        points = [TimedStep(s.images, s.gpus, s.late_s * factor) for s in self.steps]
        other = next((p for p in points if p.images != points[0].images), None)
        if other is None:
            return from_one(points[0], shared.overhead_images, shared.spread)
        found = from_two(points[0], other, shared.spread)
        if found.image_s <= 0:
            raise UserError(
                f"profile {self.name}: {other.images} images take {other.step_s:g} s and "
                f"{points[0].images} take {points[0].step_s:g} s: more images must take longer; "
                "measure it again on a quiet machine, with more steps"
            )
        if found.overhead_s < 0:
            return from_one(max(points, key=lambda p: p.images), 0.0, shared.spread)
        return found


@cache
def gpu_profiles() -> dict[str, Profile]:
    """The built-in ones, by name."""
    table = tomllib.loads((DATA / "gpus.toml").read_text(encoding="utf-8"))
    return {name: _profile(name, entry) for name, entry in table.items()}


def built_in(name: str) -> Profile:
    """Raises UserError where there is none of that name."""
    known = gpu_profiles()
    if name not in known:
        raise UserError(
            f"--gpu {name}: there is no such profile; there are {', '.join(known)}, and --profile "
            "FILE takes one of your own"
        )
    return known[name]


def read_profile(file: Path) -> Profile:
    """A file that ``bench profile`` wrote, or one like it.

    Raises:
        UserError: it can't be read, or is no profile.
        StorageError: it can't be read at the moment.
    """
    try:
        entry = json.loads(retried(lambda: file.read_text(encoding="utf-8")))
        return _profile(str(entry["name"]), entry)
    except FileNotFoundError:
        raise UserError(
            f"{file}: no such profile; bench profile --out {file} measures one"
        ) from None
    except OSError as error:
        if is_transient(error):
            raise cannot_read(file, error) from error
        raise UserError(f"{file}: the profile can't be read ({error.strerror})") from None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{file}: not a profile as bench profile writes them ({type(error).__name__}: {error})"
        ) from None


def _profile(name: str, entry: Mapping[str, Any]) -> Profile:
    def one_of(key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = entry[key] if default is None else entry.get(key, default)
        if value not in allowed:
            raise ValueError(f"{key}={value!r} must be one of {', '.join(allowed)}")
        return str(value)

    def positive(key: str) -> Sourced:
        found = read_sourced(entry[key])
        if found.value <= 0:
            raise ValueError(f"{key}: value={found.value:g} must be above 0")
        return found

    def whole(key: str, value: object, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{key}={value!r} must be a whole number, {least} to {most}")
        return value

    steps = tuple(map(_step, entry["steps"]))
    if not steps:
        raise ValueError("steps is empty, and at least one timed step is needed")
    sizes = entry.get("min_sizes", [entry.get("min_size", 800)])  # one, in files of before
    if not isinstance(sizes, list) or not sizes:
        raise ValueError(f"min_sizes={sizes!r} must be a list of whole numbers")
    bfloat16 = entry.get("bfloat16")
    if bfloat16 not in (True, False, None):
        raise ValueError(f"bfloat16={bfloat16!r} must be true or false")
    return Profile(
        name=printable(name),
        about=printable(str(entry["about"])),
        precision=one_of("precision", _PRECISIONS),
        norm=one_of("norm", _NORMS),
        link=cast(Link, one_of("link", _LINKS)),
        network=printable(str(entry["network"])),
        memory_gib=positive("memory_gib"),
        memory_gb_s=positive("memory_gb_s"),
        inside_gb_s=positive("inside_gb_s"),
        model_factor=positive("model_factor"),
        inference_s=positive("inference_s"),
        steps=steps,
        backbone=cast(Backbone, one_of("backbone", get_args(Backbone), "resnet50")),
        frozen_stages=whole("frozen_stages", entry.get("frozen_stages", 0), 0, 5),
        min_sizes=tuple(whole("min_sizes", size, 1, MOST_PIXELS) for size in sizes),
        max_size=whole("max_size", entry.get("max_size", 1333), 1, MOST_PIXELS),
        bfloat16=bfloat16,
        blocking_sum_us=_waits(entry.get("blocking_sum_us", ())) or BLOCKING_SUM_US,
        waits_from=str(entry.get("waits_from", Profile.waits_from)),
    )


def _waits(entry: Sequence[Any]) -> tuple[tuple[float, float], ...]:
    """(cycle in ms, µs of a blocking sum), as measured."""
    waits = tuple((float(cycle_ms), float(us)) for cycle_ms, us in entry)
    if not all(math.isfinite(value) and value > 0 for pair in waits for value in pair):
        raise ValueError(f"blocking_sum_us={entry!r} must be pairs of numbers above 0")
    return waits


def _step(entry: Mapping[str, Any]) -> KnownStep:
    images, gpus = entry["images"], entry["gpus"]
    numbers = [n for n in (images, gpus) if isinstance(n, int) and not isinstance(n, bool)]
    if len(numbers) != len((images, gpus)) or min(numbers) < 1:
        raise ValueError(f"images={images!r}, gpus={gpus!r} must be whole numbers above 0")
    seconds = read_sourced(entry["seconds"])
    if seconds.value <= 0:
        raise ValueError(f"seconds: value={seconds.value:g} must be above 0")
    return KnownStep(images, gpus, seconds, bool(entry.get("early", False)))


@dataclass(frozen=True)
class Network:
    """What connects machines."""

    name: str
    """As typed: ``8xhdr``."""
    about: str
    gb_s: float
    """Bus bandwidth of a machine's adapters in an all-reduce, 10⁹ bytes/s."""
    hops: float
    """Latency, in NCCL's."""
    sources: tuple[Sourced, ...]


@cache
def _networks() -> dict[str, Any]:
    return tomllib.loads((DATA / "networks.toml").read_text(encoding="utf-8"))


def network(name: str) -> Network:
    """``hdr``, or ``8xhdr`` for eight adapters a machine.

    Raises:
        UserError: no such adapter, or not 1 to 8 of them.
    """
    match = _NETWORK.fullmatch(name.lower())
    entry = _networks().get(match[2]) if match else None
    number = int(match[1] or 1) if match else 0
    if entry is None or not 1 <= number <= ADAPTERS:
        raise UserError(
            f"--network {name}: give an adapter, and how many a machine has, 1 to {ADAPTERS}: "
            f"8xhdr; adapters are {', '.join(_networks())}"
        )
    gbit_s, share, hops = (read_sourced(entry[key]) for key in ("gbit_s", "share", "hops"))
    about = f"{number} × {entry['about']}" if number > 1 else str(entry["about"])
    gb_s = number * gbit_s.value / 8 * share.value
    return Network(name.lower(), about, gb_s, hops.value, (gbit_s, share, hops))


def fabric(profile: Profile, between: Network) -> Fabric:
    """Both together."""
    return Fabric(profile.link, profile.inside_gb_s.value, between.gb_s, between.hops)
