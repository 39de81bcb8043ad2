"""The folder of one run, and how it is found again."""

import datetime
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from megdet_hvd.checkpoint.atomic import write_atomically, write_bytes
from megdet_hvd.checkpoint.naming import list_checkpoints
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.storage import as_storage_error, exists, retried


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        """What rank 0 said."""
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Checkpoint files."""
        return self.path / "checkpoints"

    @property
    def curves(self) -> Path:
        """Picture of the training curves."""
        return self.path / "curves.png"

    @property
    def detections(self) -> Path:
        """Picture of detections beside their ground truth."""
        return self.path / "detections.png"


def new_run_name(config_file: Path | None) -> str:
    """``scenes-20260131-235959``: the configuration's name and the time of day."""
    stem = "scenes" if config_file is None else config_file.stem
    return f"{stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def create_run_folder(path: Path, config_text: str, *, anew: bool = False) -> RunFolder:
    """Make the folder and write the configuration into it. Rank 0 only.

    ``anew``: a run that never came to its first checkpoint may be there; its metrics go.

    Raises:
        UserError: the folder can't be written, or holds another run already.
        StorageError: it can't be written at the moment.
    """
    folder = RunFolder(path)
    if exists(folder.config) and not (anew and not list_checkpoints(folder.checkpoints)):
        raise UserError(
            f"{path} already holds a run; carry it on with --resume {path}, or choose another "
            "name=…"
        )
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        if folder.config.exists():
            folder.metrics.unlink(missing_ok=True)
        # Whole or not at all: a job that is killed here is started anew from this file.
        write_bytes(folder.config, config_text.encode())
    except OSError as error:
        raise cannot_make(path, error) from None
    return folder


def cannot_make(path: Path, error: OSError) -> UserError | StorageError:
    """What to raise for a run folder that can't be written."""
    known = as_storage_error(error)
    if isinstance(known, StorageError):
        return known
    return UserError(
        f"{path}: the run folder can't be written ({error.strerror}); choose another place "
        "with output=FOLDER"
    )


def check_writable(folder: RunFolder) -> None:
    """Raise UserError where a run to be resumed can't be written to. Rank 0 only.

    Raises OSError where storage does not answer, for which ``os.access`` has no other word.
    """
    if not os.access(folder.path, os.W_OK):
        retried(lambda: os.stat(folder.path))
        raise UserError(
            f"{folder.path}: the run folder can't be written; mend its permissions, or copy it"
        )


def find_run(output: Path) -> RunFolder:
    """The newest run below ``output`` that has a checkpoint.

    Raises:
        UserError: there is none.
    """

    def with_checkpoints() -> list[tuple[float, Path]]:
        return [
            (list_checkpoints(folder / "checkpoints")[-1].stat().st_mtime, folder)
            for folder in (output.iterdir() if output.is_dir() else ())
            if (folder / "config.yaml").exists() and list_checkpoints(folder / "checkpoints")
        ]

    runs = retried(with_checkpoints)
    if not runs:
        raise UserError(
            f"{output} holds no run with a checkpoint to resume; name its folder: --resume FOLDER"
        )
    return RunFolder(max(runs)[1])


def forget_after(metrics: Path, iteration: int, *, evaluation_due: bool = False) -> None:
    """Drop the metrics of iterations after a checkpoint: a resumed run writes them again.

    Where the file can't be written it stays as it is; readers let the later of two lines count.
    ``evaluation_due``: so does the evaluation after ``iteration`` itself.
    """

    def stays(line: bytes) -> bool:
        try:
            record = json.loads(line)
            again = evaluation_due and record["kind"] == "eval"
            return bool(record["iteration"] < iteration + (0 if again else 1))
        except (ValueError, KeyError, TypeError, RecursionError):
            return False  # half a line, written when the power went

    def copy(kept: IO[bytes]) -> None:  # one line at a time: there may be a million
        with metrics.open("rb") as lines:
            for line in lines:
                if stays(line):
                    kept.write(line.rstrip(b"\r\n") + b"\n")

    with suppress(OSError):
        if metrics.exists():
            write_atomically(metrics, copy)
