"""A detector measured on a data set, by all ranks together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Detections
from megdet_hvd.data.depth import MANY, dark_words
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.errors import UserError, text_of
from megdet_hvd.evaluation.boxes import FoundBoxes
from megdet_hvd.evaluation.coco_ap import CocoResult, score
from megdet_hvd.evaluation.gather import gather_detections
from megdet_hvd.evaluation.inference import detect, share_out
from megdet_hvd.evaluation.numbering import Numbering
from megdet_hvd.job import stopping
from megdet_hvd.job.agree import mark_agreed, together
from megdet_hvd.job.exchange import broadcast_object, gather_objects
from megdet_hvd.job.world import World


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    result: CocoResult
    """COCO's numbers; the same on every rank."""
    numbering: Numbering
    """The evaluated pictures."""
    detections: dict[int, Detections]
    """By position in the index, on the CPU, on rank 0; empty elsewhere."""
    dark: str | None = None
    """What to say of pictures that came out all but black; None: they are few, or none."""

    def found_boxes(self) -> FoundBoxes:
        """The detections as they were scored, for the results JSON; rank 0's."""
        return self.numbering.found_boxes(self.detections)


@contextmanager
def contained(active: bool = True) -> Iterator[None]:
    """Inside, whatever goes wrong is a UserError, which the ranks can agree on and survive."""
    try:
        yield
    except (UserError, stopping.StopRequested):
        raise
    except Exception as error:
        if not active:
            raise
        raise UserError(f"{type(error).__name__}: {text_of(error)}") from error


def evaluate_detector(
    detector: nn.Module,
    index: ImageIndex,
    config: Config,
    world: World,
    *,
    survives: bool = False,
) -> Evaluation:
    """Detect on every picture of ``index`` and compare with its ground truth.

    All ranks call it together; each takes its share of the pictures, none is taken twice or
    left out, and the numbers don't depend on how many ranks there are. Rank 0 runs pycocotools
    while the others wait. The detector is in the mode it was in afterwards.

    Args:
        detector: on its device, equal weights on all ranks.
        index: the validation pictures; ``config.evaluation.max_images`` takes the first few.
        config: precision, batch size and picture size are read from it.
        world: who takes part.
        survives: whatever goes wrong on a rank is a UserError of all, which leaves none waiting.

    Raises:
        UserError: on all ranks alike; a picture can't be decoded.
        StopRequested: on all ranks alike; a rank broke off, since the job shall stop.
    """
    count = min(len(index), config.evaluation.max_images or len(index))
    images_per_batch = config.evaluation.images_per_process
    batches = share_out(index.aspects[:count].tolist(), images_per_batch, world.rank, world.size)
    found: dict[int, Detections] = {}
    unreadable = 0
    dark: list[str] = []
    with together(world, "evaluation"), contained(survives):
        found, skipped, dark = detect(
            detector,
            index,
            config,
            batches,
            local_size=world.local_size,
            cores=world.cores,
        )
        unreadable = len(skipped)
    complete = len(found) + unreadable == sum(len(batch) for batch in batches)
    reason = None if complete else stopping.wanted()
    assert complete or reason, (len(found), unreadable, batches)
    share = unreadable, reason, len(dark), min(dark, default=None)
    shares = gather_objects(share, world, "evaluation.shares")
    reasons = [text for _, text, *_ in shares if text is not None]
    if reasons:
        raise mark_agreed(stopping.StopRequested(reasons[0]))
    unreadable = sum(skips for skips, *_ in shares)
    blacks = sum(number for *_, number, _ in shares)
    first = min((file for *_, file in shares if file is not None), default=None)
    detections = gather_detections(found, world)
    numbering = Numbering.of(index, range(count))
    if world.is_main:
        assert len(detections) + unreadable == count, (len(detections), unreadable, count)
    result: CocoResult | None = None
    with together(world, "evaluation.score"), contained(survives):
        if world.is_main:
            truth = numbering.ground_truth()
            result = score(truth, numbering.found_boxes(detections), unreadable=unreadable)
    return Evaluation(
        broadcast_object(result, world, "evaluation.result"),
        numbering,
        detections,
        dark_words(blacks, count, first) if first and blacks >= MANY * count else None,
    )
