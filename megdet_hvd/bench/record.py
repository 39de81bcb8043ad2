"""The JSON file of a measurement: looked for before it is measured, written afterwards."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megdet_hvd.bench.turns import SideTimes
from megdet_hvd.errors import UserError


def record_file(text: str) -> Path:
    """The type of an option that names one: a measurement takes minutes, and would be lost.

    Raises:
        ArgumentTypeError: no file can be written there.
    """
    file = Path(text)
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: give a file in a folder that is there")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} can't be written; give another place")
    return file


def write_record(file: Path, machine: str, settings: Mapping[str, Any], **found: Any) -> None:
    """One measurement as JSON; sides become their times.

    Raises:
        UserError: it can't be written.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, SideTimes):
            return {"name": value.name, "clock_s": value.clock_s, "processor_s": value.processor_s}
        raise TypeError(f"{type(value).__name__} has no place in a record")

    record = {"machine": machine, "settings": dict(settings), **found}
    text = json.dumps(record, indent=1, default=plain) + "\n"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} can't be written ({error.strerror})") from error
