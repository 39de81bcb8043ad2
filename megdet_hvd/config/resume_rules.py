"""What a changed setting means for a run that is carried on: one rule for each, as data.

A configuration that says one thing while the state loaded from a checkpoint does another is a
wrong result that nobody notices. So each setting of the schema has its rule here: it takes effect,
or the resume is refused with the reason, or the log says that it has no effect. A setting without
a rule fails a test; ``docs/resume.md`` is written from this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from megdet_hvd.config.keys import groups, plain
from megdet_hvd.config.load import config_to_dict
from megdet_hvd.config.problems import shown
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

ResumeEffect = Literal["applies", "same pictures", "refused", "no effect"]
"""``same pictures``: applies, and the resume is refused where the training pictures (how many,
which ids, in which order) or the categories are others than the checkpoint's."""


@dataclass(frozen=True)
class Rule:
    """What becomes of one setting that is changed."""

    answer: ResumeEffect
    words: str
    """What happens, or why it is refused."""
    measures: bool = False
    """mmAP depends on it: values from before and after don't compare, so best.pt begins anew."""
    only: tuple[str, object] | None = None
    """The rule counts where this setting has this value, before and now."""


@dataclass(frozen=True)
class Change:
    """A setting that is another one now than in the checkpoint."""

    key: str
    before: Any
    now: Any
    rule: Rule

    def __str__(self) -> str:
        return f"{self.key} was {shown(self.before)} in the checkpoint and is {shown(self.now)} now"


def _applies(words: str = "from the next step on", **more: Any) -> Rule:
    return Rule("applies", words, **more)


def _measures(words: str = "from the next evaluation on") -> Rule:
    return Rule("applies", f"{words}; mmAP before and after don't compare", measures=True)


def _same(words: str, *, measures: bool = False) -> Rule:
    more = "; mmAP before and after don't compare where it changes" if measures else ""
    return Rule("same pictures", f"{words}{more}", measures=measures)


def _refused(reason: str, **more: Any) -> Rule:
    return Rule("refused", reason, **more)


_SCHEDULE = _applies(
    "from the next step on: rate and end are those of the new schedule; an end before the "
    "checkpoint is refused"
)
_OTHER_WEIGHTS = _refused("the checkpoint's weights belong to another network")
_OTHER_FUNCTION = _refused("the same weights would compute something else")
_OTHER_BATCH = _refused("the rate, the order of the pictures and each iteration's number follow")
_SCENES = ("data.kind", "scenes")
_START = _applies("at the start of this resume")
_PLACE = Rule("no effect", "a run stays in its folder")
_ONCE = Rule("no effect", "it is read before the first step; weights come from the checkpoint")

RULES: Mapping[str, Rule] = {
    "global_batch": _OTHER_BATCH,
    "seed": _refused("order, augmentation and sampling of the pictures follow from it"),
    "deterministic": _applies("from the next step on; bits are repeatable from there only"),
    "device": _applies("from the next step on; another device rounds otherwise"),
    "precision": _applies(
        "from the next step on; float16 begins with a loss scale of its own where it was not "
        "float16 before"
    ),
    "output": replace(
        _PLACE,
        words="a run stays in its folder; --resume without one looks for the newest run here",
    ),
    "name": _PLACE,
    "preflight": _START,
    "data.kind": _same("from the next step on", measures=True),
    "data.dataset": _same("from the next step on", measures=True),
    "data.train": _same("from the next step on: files may have moved, boxes may be corrected"),
    "data.val": _same("from the next evaluation on", measures=True),
    "data.index_cache": _START,
    "data.min_sizes": _applies(
        "from the next step on; with data.eval_min_size=auto in evaluation too, and then mmAP "
        "before and after don't compare",
        measures=True,
    ),
    "data.max_size": _measures("from the next step on, in evaluation too"),
    "data.eval_min_size": _measures(),
    "data.resize": _measures("from the next step on, in evaluation too"),
    "data.value_range": _measures("from the next step on, in evaluation too"),
    "data.flip_probability": _applies(),
    "data.keep_empty": _same(
        "from the next step on; pictures without boxes, where there are any, make it others"
    ),
    "data.invalid_boxes": _same("from the next step on", measures=True),
    "data.unreadable_images": _applies(),
    "data.aspect_grouping": _refused(
        "the order of the pictures follows from it: in this epoch some would come twice, others "
        "not at all"
    ),
    "data.workers": _START,
    "data.scenes.train_images": _refused("the scenes would be others", only=_SCENES),
    "data.scenes.val_images": replace(_measures(), only=_SCENES),
    "data.scenes.size": _refused("the scenes would be others", only=_SCENES),
    "data.scenes.cache": _START,
    "model.detector": _refused(
        "the checkpoint's weights belong to another network; a function that has moved is found "
        "under its old name where its old module imports it"
    ),
    "model.backbone": _OTHER_WEIGHTS,
    "model.backbone_weights": _ONCE,
    "model.init_from": _ONCE,
    "model.norm": _refused("running statistics and trained parameters would be of another kind"),
    "model.norm_eps": _OTHER_FUNCTION,
    "model.norm_momentum": _applies("from the next step on; null averages over all steps so far"),
    "model.frozen_stages": _refused(
        "the optimizer's state belongs to the parameters that were trained so far"
    ),
    "model.fpn_channels": _OTHER_WEIGHTS,
    "model.fpn_norm": _OTHER_WEIGHTS,
    "model.memory_format": _applies("from the next step on; the other order rounds otherwise"),
    "model.anchor_sizes": _OTHER_FUNCTION,
    "model.anchor_ratios": _OTHER_FUNCTION,
    "model.rpn.conv_depth": _OTHER_WEIGHTS,
    "model.rpn.gradient": _applies("from the next step on; the other way rounds otherwise"),
    "model.rpn.anchors_per_image": _applies(),
    "model.rpn.positive_fraction": _applies(),
    "model.rpn.foreground_iou": _applies(),
    "model.rpn.background_iou": _applies(),
    "model.rpn.pre_nms_train": _applies(),
    "model.rpn.pre_nms_test": _measures(),
    "model.rpn.post_nms_train": _applies(),
    "model.rpn.post_nms_test": _measures(),
    "model.rpn.nms_iou": _measures("from the next step on, in evaluation too"),
    "model.roi.head": _OTHER_WEIGHTS,
    "model.roi.width": _OTHER_WEIGHTS,
    "model.roi.norm": _OTHER_WEIGHTS,
    "model.roi.align": _applies("from the next step on; the other kernel rounds otherwise"),
    "model.roi.linear": _applies("from the next step on; the other kernel rounds otherwise"),
    "model.roi.boxes_per_image": _applies(),
    "model.roi.positive_fraction": _applies(),
    "model.roi.foreground_iou": _applies(),
    "model.roi.score_threshold": _measures(),
    "model.roi.nms_iou": _measures(),
    "model.roi.detections_per_image": _measures(),
    "bn.scope": _applies(
        "from the next step on, with the BN size that follows; each process goes on from its own "
        "running statistics where the groups stay, else from the average of all"
    ),
    "bn.size": _applies(
        "from the next step on where it is given for this resume; otherwise the resume keeps the "
        "BN size of the checkpoint"
    ),
    "bn.carrier": _applies(),
    "bn.kernels": _applies("from the next step on; the other kernels round otherwise"),
    "memory.checkpoint": _applies("from the next step on; no bit of the result changes"),
    "learning.optimizer": _refused(
        "the optimizer's state is another one's; a function that has moved is found under its old "
        "name where its old module imports it"
    ),
    "learning.base_rate": _SCHEDULE,
    "learning.base_batch": _SCHEDULE,
    "learning.scaling": _SCHEDULE,
    "learning.rate": _SCHEDULE,
    "learning.rate_factor": _SCHEDULE,
    "learning.warmup_iterations": _SCHEDULE,
    "learning.warmup_images": _SCHEDULE,
    "learning.large_batch": _SCHEDULE,
    "learning.warmup_start_rate": _SCHEDULE,
    "learning.policy": _SCHEDULE,
    "learning.milestones": _SCHEDULE,
    "learning.epochs": _SCHEDULE,
    "learning.max_iterations": _SCHEDULE,
    "learning.momentum": _applies("from the next step on, on the momentum gathered so far"),
    "learning.weight_decay": _applies(),
    "learning.decay_bn": _refused("the optimizer's state holds the parameters in other groups"),
    "learning.gradient_clip": _applies(),
    "learning.accumulation": _applies(
        "from the next step on where it is given for this resume (a BN size that changes with it: "
        "resume.other_bn_size); otherwise it follows from the number of processes"
    ),
    "horovod.compression": _applies(),
    "horovod.predivide": _applies(),
    "horovod.fusion_threshold_mib": _START,
    "horovod.cycle_time_ms": _START,
    "horovod.gradients": _applies(),
    "evaluation.every_epochs": _applies(),
    "evaluation.untrained": Rule("no effect", "the untrained model is gone after the first step"),
    "evaluation.images_per_process": _applies("from the next evaluation on"),
    "evaluation.max_images": _measures(),
    "evaluation.measures": _applies("from the next evaluation on"),
    "checkpoint.every_epochs": _applies(),
    "checkpoint.every_iterations": _applies(),
    "checkpoint.keep": _applies("from the next checkpoint on"),
    "checkpoint.on_error": _applies("from the next checkpoint on"),
    "resume.other_bn_size": _START,
    "log.every_iterations": _applies(),
    "log.progress": _applies(),
    "log.tensorboard": _applies(),
    "log.loggers": _START,
    "pipeline.evaluators": _START,
    "pipeline.max_side": _applies("from the next step on; pictures are prepared anew"),
    "pipeline.folder": _START,
    "watchdog.seconds": _START,
}
"""By dotted name, in the schema's order."""


BEFORE_THERE_WAS: Mapping[str, object] = {"data.resize": "pillow"}
"""What runs did before there was the setting, where that is not its default now."""
_ALIKE: Mapping[str, frozenset[object]] = {"data.resize": frozenset({"auto", "torch"})}
"""Values of a setting that mean the same in a run."""


def changes(before: Mapping[str, Any], config: Config) -> list[Change]:
    """What differs between the configuration in a checkpoint and ``config``, in RULES' order.

    A setting that the checkpoint does not know, from before there was one, had its default, or what
    BEFORE_THERE_WAS says.
    """
    now = config_to_dict(config)
    found = []
    for key, rule in RULES.items():
        old, new = at_path(before, key), at_path(now, key)
        counts = rule.only is None or all(
            at_path(tree, rule.only[0]) == rule.only[1] for tree in (before, now)
        )
        alike = key in _ALIKE and old in _ALIKE[key] and new in _ALIKE[key]
        if old != new and counts and not alike:
            found.append(Change(key, old, new, rule))
    return found


def refuse_changes(before: Mapping[str, Any], config: Config) -> None:
    """Raise UserError, in one line, where a setting was changed that a resumed run keeps.

    Args:
        before: the configuration in the checkpoint, as plain data.
        config: what is asked for now.
    """
    refused = [change for change in changes(before, config) if change.rule.answer == "refused"]
    if refused:
        told = "; ".join(f"{change} ({change.rule.words})" for change in refused)
        raise UserError(
            f"resume: {told}. Leave it as it was, or start a new run, from these weights with "
            "model.init_from=CHECKPOINT where they fit (docs/resume.md: what may change)"
        )


def at_path(tree: Mapping[str, Any], path: str) -> Any:
    """The value of a setting in a configuration as plain data; what it was then where it is not."""
    at: Any = tree
    for name in path.split("."):
        if not isinstance(at, Mapping) or name not in at:
            return BEFORE_THERE_WAS.get(path, _defaults()[path])
        at = at[name]
    return at


@cache
def _defaults() -> Mapping[str, Any]:
    return {key.path: plain(key.default) for group in groups() for key in group.keys}
