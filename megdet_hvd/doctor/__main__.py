"""``python -m megdet_hvd.doctor [--config FILE] [--quick] [key=value …]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.command import leave, name_of
from megdet_hvd.doctor.gather import gather
from megdet_hvd.doctor.verdict import can_run, judge, report
from megdet_hvd.job_folder import checkout
from megdet_hvd.version import add_version_option


def main(argv: Sequence[str] | None = None) -> int:
    """Look, print one screen, and return 0 where training can run, else 1."""
    parser = argparse.ArgumentParser(
        prog=name_of("megdet_hvd.doctor"),
        description="What this machine has and what mends what is missing. The exit code is 0 "
        "where training can run, and 1 where it cannot.",
    )
    add_version_option(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="look at its data paths too")
    parser.add_argument(
        "--quick", action="store_true", help="do not start two processes with horovodrun"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="change a setting")
    arguments = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks → shows an escape instead
            stream.reconfigure(errors="backslashreplace")
    findings = judge(gather(arguments.config, arguments.overrides, launch=not arguments.quick))
    print("\n".join(report(findings, installed=checkout() is None)))
    return 0 if can_run(findings) else 1


if __name__ == "__main__":
    leave(main)
