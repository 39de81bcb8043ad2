"""Mutated files of every kind that users hand to the package: read right, or refused in words.

``python -m tests.faults.mutations --seed 1 --files 700``. Of each file, one of three must be true:
it is refused with one of the package's own errors; it is read with the values that an independent
reader finds in it; or it is damaged beyond that reader too, and refused.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from megdet_hvd.checkpoint.facts import Absent, read_facts
from megdet_hvd.checkpoint.file import load_checkpoint, save_checkpoint
from megdet_hvd.cluster.outcome import Outcome, read_outcome, write_outcome
from megdet_hvd.cluster.site import Site, read_site
from megdet_hvd.config.load import config_from_dict, config_to_dict, load_config, to_yaml
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.report.metrics_file import read_metrics
from megdet_hvd.slurm_job import record
from tests.ranks import ROOT

LIMIT_S = 20
"""A reader that takes longer hangs."""

ODD: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "1",
    "ünï",
    "\ud800",
    -1,
    0,
    0.5,
    1e400,
    float("nan"),
    2**63,
    2**70,
    10**400,
    [],
    [[]],
    {},
    {"a": {"b": []}},
)


class WronglyRead(AssertionError):
    """The package made something of a file that is not in it."""


@dataclass(frozen=True)
class Subject:
    """One kind of file."""

    name: str
    make: Callable[[Path, random.Random], Path]
    """Write a sound file into a folder."""
    mutate: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path, Path], str]
    """Read (mutated, sound); says ``read`` or ``refused``, or raises."""


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """One of the things that disks, transfers and editors do to bytes."""
    data = bytearray(content)
    at = draw.randrange(len(data)) if data else 0
    kind = draw.randrange(7)
    if kind == 0 and data:
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at:at] = draw.randbytes(draw.randint(1, 40))
    elif kind == 3:
        length = draw.randint(1, 4096)
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == 4:
        data = data[at:] + data[:at]
    elif kind == 5:
        data += data[: draw.randint(0, 2000)]
    else:
        del data[at : at + draw.randint(1, 100)]
    return bytes(data)


def mutate_text(content: bytes, draw: random.Random) -> bytes:
    """As above, or what an editor on another system makes of a text."""
    kind = draw.randrange(8)
    text = content.decode()
    if kind == 0:
        return text.replace("\n", "\r\n").encode()
    if kind == 1:
        return ("\ufeff" + text).encode(draw.choice(("utf-8", "utf-16", "utf-16-le")))
    if kind == 2:
        lines = text.splitlines(keepends=True)
        first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
        lines[first], lines[second] = lines[second], lines[first]
        return "".join(lines).encode()
    if kind == 3:
        return text.replace("  ", "\t").encode()
    return mutate_bytes(content, draw)


def mutate_tree(tree: Any, draw: random.Random) -> Any:
    """The tree with one to three of its nodes changed."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return draw.choice(ODD)
        holder, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(("", "x", f"{key} ", str(key).upper()))] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.append(holder[key])
        elif kind == 3 and isinstance(holder[key], int | float):
            holder[key] = draw.choice((str(holder[key]), float(holder[key]), -holder[key]))
        elif kind == 4:
            holder[key] = [holder[key]]
        else:
            holder[key] = draw.choice(ODD)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield tree, key
            yield from _places(value)
    elif isinstance(tree, list):
        for position, value in enumerate(tree):
            yield tree, position
            yield from _places(value)


def _mutate_json(content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        return mutate_text(content, draw)
    return json.dumps(mutate_tree(json.loads(content), draw)).encode(errors="surrogatepass")


# Configuration files.


def _config_file(folder: Path, draw: random.Random) -> Path:
    file = folder / "config.yaml"
    sources = sorted((ROOT / "configs").glob("*.yaml"))
    config = load_config(draw.choice(sources))
    file.write_text(to_yaml(config), encoding="utf-8")
    return file


def _mutate_yaml(content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.4:
        return mutate_text(content, draw)
    tree = mutate_tree(yaml.safe_load(content), draw)
    return yaml.safe_dump(tree, allow_unicode=True).encode(errors="surrogatepass")


def _read_config(file: Path, sound: Path) -> str:
    del sound
    config = load_config(file)
    if config_from_dict(config_to_dict(config)) != config:
        raise WronglyRead("the configuration does not survive its own YAML")
    tree = yaml.safe_load(file.read_bytes())
    for path, value in _leaves(tree or {}):
        found = _at(config_to_dict(config), path)
        if _differs(found, value):
            raise WronglyRead(f"{'.'.join(path)} is {value!r} in the file, and {found!r} in use")
    return "read"


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, tree


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def _differs(found: Any, written: Any) -> bool:
    """Numbers may change their type (2 for 2.0), nothing may change its value."""
    if isinstance(found, list | tuple) and isinstance(written, list | tuple):
        pairs = list(zip(found, written, strict=False))
        return len(found) != len(written) or any(_differs(a, b) for a, b in pairs)
    if isinstance(found, dict) and isinstance(written, dict):
        return any(_differs(found.get(key), value) for key, value in written.items())
    return bool(found != written)


# Checkpoints.


def _checkpoint(folder: Path, draw: random.Random) -> Path:
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    file = folder / "iteration_00000007.pt"
    state: Mapping[str, Any] = {
        "config": config_to_dict(Config()),
        "categories": ["cat", "dog"],
        "category_ids": [1, 2],
        "model": {f"layer{n}": torch.randn(64, 9, generator=generator) for n in range(4)},
        "optimizer": {"state": {}, "param_groups": []},
        "images_seen": 56,
        "iteration": 7,
        "ap": 0.25,
        "random": {},
    }
    save_checkpoint(file, state)
    return file


def _read_checkpoint(file: Path, sound: Path) -> str:
    theirs = load_checkpoint(sound)
    facts = read_facts(file)
    for key, value in facts.items():
        if not isinstance(value, Absent) and key in ("iteration", "ap", "images_seen"):
            expected = theirs[key]
            if value != expected:
                raise WronglyRead(f"facts: {key} is {value!r}, and was written as {expected!r}")
    ours = load_checkpoint(file)
    if str(ours["config"]) != str(theirs["config"]) or ours["ap"] != theirs["ap"]:
        raise WronglyRead("other values than were written")
    for name, tensor in theirs["model"].items():
        if not torch.equal(ours["model"][name], tensor):
            raise WronglyRead(f"{name} is not what was written")
    return "read"


# What a run and a job write, and read back.

_RESULTS = ("metrics.jsonl", "outcome.json", "jobs.jsonl")


def _results(folder: Path, draw: random.Random) -> Path:
    name = draw.choice(_RESULTS)
    file = folder / name
    if name == "outcome.json":
        write_outcome(file, Outcome(5, "stopped on request", 7, "/a/run"))
    elif name == "jobs.jsonl":
        for event in ("start", "requeue", "start", "end"):
            record.append(folder, event, job=17, restart=1, failure=False, idle=0, iteration=5)
    else:
        lines = [
            {"kind": kind, "iteration": n, "loss": 1.5, "AP": 0.1, "learning_rate": 0.01}
            for n in range(1, 6)
            for kind in ("train", "eval")
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return next(folder.glob("*.json*"))


def _mutate_lines(content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.4:
        return mutate_text(content, draw)
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    changed = json.dumps(mutate_tree(json.loads(lines[at]), draw))
    lines[at] = changed.encode(errors="surrogatepass")
    return b"\n".join(lines) + b"\n"


def _read_results(file: Path, sound: Path) -> str:
    del sound
    if file.name == "outcome.json":
        outcome = read_outcome(file)
        if outcome is not None and type(outcome.code) is not int:
            raise WronglyRead(f"an exit code of {outcome.code!r}")
        return "refused" if outcome is None else "read"
    if file.name == "jobs.jsonl":
        records = record.read(file.parent)
        job = record.last_job(records)
        if job is not None:
            record.idle_starts_of(records, job)
            record.failures_of(records, job)
        return "read"
    from megdet_hvd.report.curves import draw_curves

    found = read_metrics(file)
    for one in (*found.train, *found.eval):
        if type(one["iteration"]) is not int:
            raise WronglyRead(f"an iteration of {one['iteration']!r}")
    draw_curves(found, file.with_name("curves.png"))
    return "read"


# The site file.


def _site(folder: Path, draw: random.Random) -> Path:
    file = folder / "site.sh"
    text = (ROOT / "slurm" / "site.example.sh").read_text()
    entries = {
        "SITE_PARTITION": "gpu",
        "SITE_ACCOUNT": "vision",
        "SITE_LAUNCHER": draw.choice(("auto", "srun", "mpirun")),
        "SITE_REQUEUE_ON_FAILURE": str(draw.randint(0, 9)),
        "SITE_STAGING": "/local/data",
        "SITE_CONTAINER": '"apptainer exec --nv"',
    }
    for name, value in entries.items():
        lines = text.splitlines()
        text = "\n".join(
            f"{name}={value}" if line.startswith(f"{name}=") else line for line in lines
        )
    file.write_text(text + "\n")
    return file


_SITE_ODD = ("", "x", "-1", "1e9", "'", '"', "(a b)", "ü", "two words", "$(", "${", "`", "\\", "\0")


def _mutate_site(content: bytes, draw: random.Random) -> bytes:
    """Entries changed, and bytes cut or swapped; nothing that could run as another command."""
    lines = content.decode().splitlines()
    entries = [n for n, line in enumerate(lines) if line.startswith("SITE_")]
    at = draw.choice(entries)
    name, _, value = lines[at].partition("=")
    kind = draw.randrange(6)
    if kind == 0:
        lines[at] = f"{name}={draw.choice(_SITE_ODD)}"
    elif kind == 1:
        lines[at] = f"{name[:-1]}={value}"
    elif kind == 2:
        lines[at] = f"{name} = {value}"
    elif kind == 3:
        lines[at] = f"readonly {name}={value}"
    elif kind == 4:
        return "\r\n".join(lines).encode()
    else:
        text = "\n".join(lines[: draw.randrange(len(lines))])
        return text.encode()[: -draw.randint(0, 3) or None]
    return ("\n".join(lines) + "\n").encode(draw.choice(("utf-8", "utf-8", "utf-8-sig")))


def _read_site(file: Path, sound: Path) -> str:
    before, found = read_site(sound), read_site(file)
    text = file.read_bytes().decode(errors="replace")
    for name in ("partition", "account", "launcher", "requeue_on_failure"):
        line = f"SITE_{name.upper()}="
        written = [x.partition("=")[2] for x in text.splitlines() if x.startswith(line)]
        default, value = getattr(Site(), name), getattr(found, name)
        if value not in (default, getattr(before, name)) and str(value) not in written:
            raise WronglyRead(f"{name} is {value!r}, and the file says {written}")
    return "read"


SUBJECTS: tuple[Subject, ...] = (
    Subject("configuration", _config_file, _mutate_yaml, _read_config),
    Subject("checkpoint", _checkpoint, mutate_bytes, _read_checkpoint),
    Subject("results", _results, _mutate_lines, _read_results),
    Subject("site file", _site, _mutate_site, _read_site),
)


@contextmanager
def in_time(limit_s: int) -> Iterator[None]:
    """A block that takes longer fails. Main thread only."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still reading after {limit_s} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(limit_s)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_one(subject: Subject, seed: int) -> str:
    """``read``, ``refused``, or what is wrong: a traceback, a wrong read, a hang."""
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="megdet-mutation-"))
    try:
        (folder / "sound").mkdir()
        sound = subject.make(folder / "sound", draw)
        (folder / "mutated").mkdir()
        mutated = folder / "mutated" / sound.name
        for other in sound.parent.iterdir():
            if other != sound:
                shutil.copytree(other, mutated.parent / other.name) if other.is_dir() else None
        content = subject.mutate(sound.read_bytes(), draw)
        mutated.write_bytes(content)
        with in_time(LIMIT_S):
            try:
                return subject.read(mutated, sound)
            except UserError as error:
                text = str(error)
                if not text.strip() or "Traceback" in text:
                    return f"refused without words: {text!r}"
                return "refused"
            except StorageError as error:
                return f"laid at the storage's door: {error}"
    except Exception:
        return traceback.format_exc()
    finally:
        shutil.rmtree(folder)


def campaign(seed: int, files: int, subjects: tuple[Subject, ...] = SUBJECTS) -> list[str]:
    """Try ``files`` mutated files, by turns of each kind; returns what went wrong."""
    counts: dict[str, Counter[str]] = {subject.name: Counter() for subject in subjects}
    wrong = []
    for number in range(files):
        subject = subjects[number % len(subjects)]
        found = try_one(subject, seed * 1_000_003 + number)
        if found not in ("read", "refused"):
            wrong.append(f"{subject.name}, {seed * 1_000_003 + number}: {found}")
            found = "WRONG"
        counts[subject.name][found] += 1
    print("| files | mutated | read as another reader reads them | refused | wrong |")
    print("|---|---|---|---|---|")
    for name, count in counts.items():
        row = (count.total(), count["read"], count["refused"], count["WRONG"])
        print(f"| {name} | {' | '.join(map(str, row))} |")
    return wrong


def main() -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=700)
    options = parser.parse_args()
    wrong = campaign(options.seed, options.files)
    for one in wrong:
        print(f"\n{one}")
    print(f"{options.files - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
