"""One small JSON file for each finished training, and for each seed's backbone.

``RECORDS/SCALE-seedK/NAME.json``. A training that has a record is not done again. All records of a
seed start from one backbone, whose digest each of them carries: records of another backbone, or of
other settings, are refused and never mixed in.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.errors import UserError

FORMAT = 1
BACKBONE = "backbone"
CURVE_POINTS = 60
"""Points of a loss curve that a record keeps."""

LabRecord = dict[str, Any]


@dataclass(frozen=True)
class SeedRecords:
    """The records of one seed at one scale."""

    folder: Path

    def file(self, name: str) -> Path:
        """Where the record of that name is, or would be."""
        return self.folder / f"{name}.json"

    def read(self, name: str) -> LabRecord | None:
        """A record; None where there is none.

        Raises:
            UserError: it can't be read, or is none of this format.
        """
        file = self.file(name)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{file}: can't be read ({error.strerror})") from error
        try:
            record = json.loads(content.decode())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} is no JSON ({error}); remove it to do it again") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise UserError(
                f"{file} is no record of format {FORMAT}; move its folder away to begin anew"
            )
        return record

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Whole or not at all.

        Raises:
            UserError: the folder can't be written.
        """
        text = json.dumps({"format": FORMAT, "name": name, **record}, indent=1) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.file(name), text.encode())
        except OSError as error:
            raise UserError(
                f"{self.folder}: the records can't be kept there ({error.strerror}); "
                "try another --out"
            ) from error

    def finished(self, name: str, settings: str, backbone: str) -> LabRecord | None:
        """The record of a training that need not be done again; None where there is none.

        Raises:
            UserError: there is one, made with other settings or from another backbone.
        """
        record = self.read(name)
        if record is None:
            return None
        found = {"settings": record.get("settings"), "backbone": record.get("backbone")}
        for what, wanted in (("settings", settings), ("backbone", backbone)):
            if found[what] != wanted:
                raise UserError(
                    f"{self.file(name)} is of other {what} ({found[what]!a:.40}, now {wanted!a}): "
                    "one seed's records must not be mixed; move its folder away, or take another "
                    "--out"
                )
        return record


def settings_digest(words: Sequence[str]) -> str:
    """Of the settings of a training, whatever their order; 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:16]


def in_a_word(record: LabRecord) -> str:
    """What became of a training, for the terminal."""
    if record["diverged"] is not None:
        return f"diverged at update {record['diverged']['at']} ({record['diverged']['why']})"
    scores = record["scores"]
    ap = scores[-1]["AP"] if scores else None
    return f"{record['updates']} updates" + ("" if ap is None else f", mmAP {100 * ap:.1f} %")


def thinned(iterations: Sequence[int], values: Sequence[float | None]) -> list[list[float | None]]:
    """A curve in at most ``CURVE_POINTS`` pieces: last iteration and mean value of each."""
    pieces = min(CURVE_POINTS, len(values))
    curve: list[list[float | None]] = []
    for i in range(pieces):
        chosen = slice(i * len(values) // pieces, (i + 1) * len(values) // pieces)
        known = [value for value in values[chosen] if value is not None]
        mean = round(sum(known) / len(known), 5) if known else None
        curve.append([iterations[chosen][-1], mean])
    return curve
