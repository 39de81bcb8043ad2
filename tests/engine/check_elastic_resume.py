"""Called by several ranks: the real entry point, once for each line.

A line is ``MACHINES WORDS…``: the machine of each rank, and the command line of ``python -m
megdet_hvd.train``. ``@FOLDER`` stands for the folder.

Some things are changed. The detector computes in float64, so that what another order of sums can
change is a billionth, and no drawn sample depends on it. And each rank writes down the pictures
that it is given, to ``seen/NAME-ITERATION-RANK-OF.json``. With MEGDET_BLIND=1
in the environment, ranks other than 0 see no checkpoint, as on a slow network file system. No
picture is drawn, to save time.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from megdet_hvd import train
from megdet_hvd.checkpoint.facts import read_saved_layout
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.data.batch import Batch
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.engine import resumption, run, run_detector
from megdet_hvd.errors import UserError
from megdet_hvd.model.build import build_detector
from tests.engine.small import small_and_quiet

RANK = read_launch(os.environ).rank or 0


class NotingLoader(TrainLoader):
    """Writes down which pictures come in which pass."""

    folder: Path
    name: str

    def __init__(self, *arguments: Any, **words: Any) -> None:
        super().__init__(*arguments, **words)
        self.first, self.of = words["start_iteration"], words["world_size"]

    def __iter__(self) -> Iterator[list[Batch]]:
        for step, batches in enumerate(super().__iter__(), self.first + 1):
            seen = [[(info.epoch, info.image_id) for info in batch.infos] for batch in batches]
            file = self.folder / f"{self.name}-{step}-{RANK}-{self.of}.json"
            file.write_text(json.dumps(seen))
            yield batches


def in_float64(*arguments: Any, **words: Any) -> Any:
    return build_detector(*arguments, **words).double()


def blind(path: Path) -> SavedLayout:
    if RANK:
        raise UserError(f"{path}: not there yet")
    return read_saved_layout(path)


def run_lines(path: str, lines: Sequence[str]) -> None:
    """Each line ends with a word on its exit code, on standard output."""
    folder = Path(path)
    NotingLoader.folder = folder / "seen"
    NotingLoader.folder.mkdir(exist_ok=True)
    seen_as = blind if os.environ.get("MEGDET_BLIND") else read_saved_layout
    with (
        mock.patch.object(run_detector, "build_detector", in_float64),
        mock.patch.object(run, "TrainLoader", NotingLoader),
        small_and_quiet(),
        mock.patch.object(resumption, "read_saved_layout", seen_as),
    ):
        for line in lines:
            machines, *words = (word.replace("@FOLDER", str(folder)) for word in line.split())
            named = [word.partition("=")[2] for word in words if word.startswith("name=")]
            resumed = [Path(word).name for word in words if Path(word).is_dir()]
            NotingLoader.name = [*resumed, *named][0]
            code = train.main(words, machine_of_rank=[int(m) for m in machines.split(",")])
            print(f"rank {RANK}: {NotingLoader.name} ended with {code}", flush=True)
