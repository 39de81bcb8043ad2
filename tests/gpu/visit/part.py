"""``python -m tests.gpu.visit.part NAME OUT``: one part, in a process of its own."""

import argparse
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from megdet_hvd.command import leave
from tests.engine.small import thin_backbones
from tests.gpu.visit.parts import Measure, Setting, chosen
from tests.gpu.visit.record import Record, noted, write_record


def main() -> int:
    """Measure, and keep what was found after each quantity."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("name")
    add("out", type=Path)
    add("--device", default="cuda")
    add("--small", action="store_true")
    add("--carried", type=Path)
    options = parser.parse_args()
    (part,) = chosen([options.name])
    folder = options.out / part.name
    folder.mkdir(parents=True, exist_ok=True)
    measure: Measure = import_module(f"tests.gpu.visit.{part.name}").measure
    record = Record(part.name, "running", options.device, small=options.small)
    began = time.monotonic()
    setting = Setting(options.device, options.small, folder, options.carried)
    with thin_backbones() if options.small else nullcontext():
        for quantity, value in measure(setting):
            record = noted(record, quantity, value)
            write_record(options.out, record)
            passed = time.monotonic() - began
            print(f"{passed:7.1f} s  {quantity}: {value}", flush=True)
    return 0


if __name__ == "__main__":
    leave(main)
