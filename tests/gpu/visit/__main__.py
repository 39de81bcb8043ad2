"""``python -m tests.gpu.visit pack | run | table``: docs/gpu_visit.md.

python -m tests.gpu.visit pack CARRIED                 where there is a network: what to carry
python -m tests.gpu.visit run OUT --carried CARRIED    on the machine with the GPU
python -m tests.gpu.visit run OUT --again              what failed or was not reached, 3 minutes
python -m tests.gpu.visit table OUT                    the table once more
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from install.pins import VERSIONS_FILE, read_versions
from install.problem import SetupProblem
from megdet_hvd.command import leave
from tests.gpu.visit.carried import read_carried
from tests.gpu.visit.environment import make_environment
from tests.gpu.visit.expected import EXPECTED
from tests.gpu.visit.parts import BUILD, PARTS, Part, Setting, chosen, command_of
from tests.gpu.visit.record import log_file, read_record, record_file
from tests.gpu.visit.runner import Runner, zip_records
from tests.gpu.visit.table import lines

ROOT = Path(__file__).resolve().parents[3]
MINUTES, AGAIN_MINUTES = 8.0, 3.0
LANES = 3
"""Parts at a time whose times don't count; each wants a few cores and a few GiB of the GPU."""


def main() -> int:
    """Run one of them; ``run`` and ``table`` end with 1 where something is off."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu.visit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fill = commands.add_parser("pack", help="fill the folder that is carried")
    fill.add_argument("folder", type=Path, help="made anew")
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    fill.add_argument("--python", default=running, help=f"of that machine; {running}")
    fill.add_argument("--torch", help="of that machine, a pair of install/versions.toml")
    fill.add_argument(
        "--there", type=Path, metavar="FILE", help="its `pip list`; what is in it is not carried"
    )
    run = commands.add_parser("run", help="take the parts, print the table")
    run.add_argument("out", type=Path, help="folder for records and logs")
    run.add_argument("--carried", type=Path, metavar="FOLDER", help="what pack has filled")
    run.add_argument("--work", type=Path, metavar="FOLDER", help="for the environment made there")
    run.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    run.add_argument("--minutes", type=float, help=f"in all; {MINUTES:g}, again {AGAIN_MINUTES:g}")
    run.add_argument("--only", nargs="+", default=[], metavar="PART", help="no others")
    run.add_argument("--again", action="store_true", help="what is not done yet")
    run.add_argument("--small", action="store_true", help="a trial of the program itself")
    run.add_argument("--zip", type=Path, metavar="FILE", help="all of it in one; OUT/visit.zip")
    table = commands.add_parser("table", help="the table of a visit")
    table.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "table":
        return show(options.out, (), ())
    try:
        if options.command == "pack":
            return fill_folder(options)
        return visit(options, chosen(options.only))
    except (ValueError, SetupProblem) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def fill_folder(options: argparse.Namespace) -> int:
    """Fill what is carried."""
    from tests.gpu.visit.pack import names_in, pack

    versions = read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))
    names = None if options.there is None else names_in(options.there.read_text(encoding="utf-8"))
    pack(options.folder, options.python, options.torch or versions.default_torch, names)
    return 0


def visit(options: argparse.Namespace, parts: tuple[Part, ...]) -> int:
    """Take the parts within the time."""
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    minutes = options.minutes
    if minutes is None:
        minutes = AGAIN_MINUTES if options.again else MINUTES
    deadline = time.monotonic() + 60 * minutes
    asked = parts
    zipped = (options.zip or out / "visit.zip").resolve()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    carried = None if options.carried is None else options.carried.resolve()
    python = sys.executable
    if carried is not None:
        work = options.work or Path(tempfile.gettempdir()) / f"megdet_hvd-visit-{os.getuid()}"
        place = make_environment(carried, read_carried(carried), work.resolve())
        python, environ = str(place.python), place.environ(environ)
    setting = Setting(options.device, options.small, out, carried)
    if options.again:
        parts = left(parts, setting)
    else:
        forget(out, parts)
    command = partial(command_of, python)
    lanes = LANES if options.device == "cuda" else 1
    runner = Runner(command, setting, deadline, environ, ROOT, zipped, lanes)
    try:
        runner.run(parts)
    finally:
        code = show(out, asked, runner.not_reached)
    zip_records(out, zipped)
    return code


def left(parts: Sequence[Part], setting: Setting) -> tuple[Part, ...]:
    """What is not done yet, and Horovod, in case that the environment is another one now."""
    found = [part for part in parts if not done(part, setting)]
    carried = setting.carried is not None and any(part.needs_horovod for part in found)
    return tuple(part for part in PARTS if part in found or (carried and part.name == BUILD))


def done(part: Part, setting: Setting) -> bool:
    """Whether it ended well, on such a device and in such sizes."""
    record = read_record(setting.folder, part.name)
    if record is None or record.state != "done":
        return False
    return (record.device, record.small) == (setting.device, setting.small)


def forget(out: Path, parts: Sequence[Part]) -> None:
    """An earlier visit's records are not to stand for what this one does not reach."""
    for part in parts:
        record_file(out, part.name).unlink(missing_ok=True)
        log_file(out, part.name).unlink(missing_ok=True)


def show(out: Path, asked: Sequence[Part], not_reached: Sequence[str]) -> int:
    """Print the table of what is there or was asked for, and write it; 1: something is off."""
    every = {part: read_record(out, part.name) for part in PARTS}
    records = {part.name: record for part, record in every.items() if record or part in asked}
    told = lines(records, EXPECTED, not_reached)
    text = "\n".join(told) + "\n"
    print(text, end="", flush=True)
    (out / "table.txt").write_text(text, encoding="utf-8")
    return int("off:" in told)


if __name__ == "__main__":
    leave(main)
