"""The annotation files by the rules of training, read before a job that only looks."""

from megdet_hvd.config.schema import Config
from megdet_hvd.data.factory import open_datasets


def read_annotations(config: Config) -> tuple[list[str], list[str]]:
    """What is in the data sets, and what looks wrong with them; nothing of rendered scenes.

    One process reads for all: the files are the same, and a training reads them anyway.

    Raises:
        UserError: what training would stop on.
        StorageError: a file or folder can't be read at the moment.
    """
    if config.data.kind != "coco":
        return [], []
    sets = open_datasets(config.data, is_main=True, wait=lambda: None)
    named = [("training", sets.train), *([("validation", sets.val)] if sets.val else [])]
    lines = [f"{name}: {line}" for name, index in named for line in index.summary()]
    return lines, [f"{name}: {doubt}" for name, index in named for doubt in index.doubts]
