"""An annotation file and its pictures, as paths that are ready to be opened."""

from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import AnnotationSource


@dataclass(frozen=True)
class PictureSource:
    """An annotation file and the folder of its pictures."""

    annotations: Path
    images: Path


def expand_source(source: AnnotationSource) -> PictureSource:
    """The paths of a configured source, with ``~`` and ``${VARIABLE}`` replaced.

    Raises:
        UserError: a variable is not set, or a path is empty.
    """
    return PictureSource(
        expand_path(source.annotations, "annotations"), expand_path(source.images, "images")
    )
