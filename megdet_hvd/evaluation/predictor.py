"""Detection in Python: ``load_detector(path)(images)``."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from megdet_hvd.config.named_code import check_name, find_code
from megdet_hvd.config.schema import DataConfig
from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.batch import Batch, Detections, ImageInfo
from megdet_hvd.data.canvas import BatchCanvas
from megdet_hvd.data.depth import UnknownRange
from megdet_hvd.data.ids import Id
from megdet_hvd.data.loader import eval_transform
from megdet_hvd.data.orientation import upright
from megdet_hvd.data.resizing import as_pixels, resized
from megdet_hvd.data.transforms import UnreadablePicture, decode, resized_size, to_rgb
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.inference import evaluating
from megdet_hvd.evaluation.trained import read_trained
from megdet_hvd.model.device import autocast, pick_device
from megdet_hvd.model.own import DetectorFactory

Picture = str | os.PathLike[str] | Image.Image | Tensor


class Predictor:
    """A detector with all that is done to pictures before it and to boxes after it."""

    def __init__(
        self,
        detector: nn.Module,
        categories: Sequence[str],
        category_ids: Sequence[Id],
        data: DataConfig,
        precision: str = "auto",
    ) -> None:
        self.detector = detector
        """On its device, in evaluation mode."""
        self.categories = tuple(categories)
        """Label k is ``categories[k - 1]``."""
        self.category_ids = tuple(category_ids)
        """Label k has the id ``category_ids[k - 1]`` in annotation files."""
        self._transform = eval_transform(data)
        self._precision = precision
        self.value_range: ValueRange = data.value_range
        """Black and white of pictures of more than 8 bits, as in training."""

    def __call__(self, images: Picture | Sequence[Picture]) -> list[Detections]:
        """Detections of each picture, on the CPU, best first, in pixels of the upright picture.

        Pictures pass one by one, so none depends on others of its batch.

        Args:
            images: paths, Pillow pictures, or uint8 RGB tensors (3, H, W); one or several.

        Raises:
            UserError: a path can't be decoded; it is named.
            TypeError: something else than these was given.
        """
        if isinstance(images, str | os.PathLike | Image.Image) or (
            isinstance(images, Tensor) and images.ndim == 3
        ):
            images = [images]
        device = next(self.detector.parameters()).device
        results = []
        with evaluating(self.detector), autocast(self._precision, device):
            for image in images:
                batch = self._batch(as_picture(image, self.value_range)).to(device)
                (found,) = self.detector(batch)
                results.append(
                    Detections(
                        found.boxes.float().cpu(), found.scores.float().cpu(), found.labels.cpu()
                    )
                )
        return results

    def _batch(self, picture: Image.Image) -> Batch:
        transform = self._transform
        width, height = resized_size(*picture.size, transform.min_size, transform.max_size)
        info = ImageInfo(
            index=0,
            source=0,
            image_id=0,
            epoch=0,
            original_size=(picture.height, picture.width),
            size=(height, width),
        )
        canvas = BatchCanvas([(width, height)])
        canvas.lay(resized(as_pixels(picture), (width, height), transform.resizer))
        return Batch(canvas.finished(), (info,), ())


def load_detector(
    path: str | os.PathLike[str],
    device: str = "auto",
    *,
    norm_eps: float | None = None,
    detector: DetectorFactory | str | None = None,
    trust_code: bool = False,
) -> Predictor:
    """A detector from a file, ready to use.

    Args:
        path: a checkpoint of ours, a run folder (its latest checkpoint), or a state dict of
            torchvision's Faster R-CNN.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        norm_eps: see :func:`megdet_hvd.evaluation.trained.read_trained`; for torchvision only.
        detector: what makes the detector, or its ``module:name``, where it is one of your own
            (docs/extending.md).
        trust_code: import whatever the file names, which runs it; for files of your own.

    Raises:
        UserError: missing, damaged or foreign file, or no such device; the file names code to
            make its detector with, and neither ``detector`` nor ``trust_code`` is given.
    """
    trained = read_trained(Path(path).expanduser(), norm_eps=norm_eps)
    chosen = pick_device(device)
    precision = trained.config.precision if chosen.type == "cuda" else "float32"
    if detector is None and trust_code:
        detector = trained.config.model.detector
    if isinstance(detector, str):
        try:
            detector = find_code("model.detector", check_name("model.detector", detector))
        except ValueError as error:
            raise UserError(str(error)) from None
    return Predictor(
        trained.build(chosen, own=detector),
        trained.categories,
        trained.category_ids,
        trained.config.data,
        precision,
    )


def as_picture(image: Picture, value_range: ValueRange = "auto") -> Image.Image:
    """Any accepted kind of picture as upright 8-bit RGB.

    Raises:
        UserError: a file that can't be decoded, or values that don't fit ``value_range``.
        TypeError: something else than a picture was given.
    """
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise TypeError(
                f"a tensor picture must be uint8 RGB (3, H, W), not {image.dtype} "
                f"{tuple(image.shape)}"
            )
        return Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy())
    if isinstance(image, Image.Image):
        try:
            return to_rgb(upright(image), value_range)
        except UnknownRange as error:
            raise UserError(f"the picture given: {error}") from error
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"a picture is a path, a Pillow picture or a tensor, not {type(image)}")
    file = Path(image)
    if file.is_dir():
        raise UserError(f"{file}: is a folder; give the pictures in it, one by one or as a list")
    try:
        return decode(file, None, value_range)
    except UnreadablePicture as error:
        reason = "no such file" if not file.exists() else str(error)
        raise UserError(f"{file}: cannot be decoded ({reason}); give a picture file") from error
