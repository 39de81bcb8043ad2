"""A COCO folder of a few pictures, where the templates' configurations look for the real one."""

from pathlib import Path

from tests.evaluation.sets import write_set


def write_coco(folder: Path) -> Path:
    """Forty pictures each for training and validation; returns the folder."""
    for part in ("train2017", "val2017"):
        made = write_set(folder / part, range(1, 41), categories={1: "person"})
        annotations = folder / "annotations" / f"instances_{part}.json"
        annotations.parent.mkdir(exist_ok=True)
        Path(made.annotations).rename(annotations)
        for picture in Path(made.images).iterdir():
            picture.rename(folder / part / picture.name)
    return folder
