"""Run by one process: every setting of the schema is changed for a resume, and what is in effect
is read back; or the resume is refused.

Argument: folder. Settings that get along are changed together, in rounds, through the real path
from the command line's words to training steps.
"""

import json
import logging
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from megdet_hvd import train
from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.checkpoint.naming import list_checkpoints
from megdet_hvd.cli import TrainArguments
from megdet_hvd.config.keys import valid_keys
from megdet_hvd.config.load import load_config, override, to_yaml
from megdet_hvd.config.resume_rules import RULES
from megdet_hvd.config.schema import Config
from megdet_hvd.data.index_cache import cache as index_cache
from megdet_hvd.data.index_cache.cache import WORTH_IT_BYTES
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.engine import run as engine_run
from megdet_hvd.engine import saving
from megdet_hvd.engine.evaluate_in_line import evaluation_due
from megdet_hvd.engine.needs import training_needs
from megdet_hvd.engine.prepare import Run, announce, prepare_run
from megdet_hvd.engine.progress import TrainingProgress
from megdet_hvd.engine.saving import checkpoint_due
from megdet_hvd.engine.state import restore_state
from megdet_hvd.errors import RunError, UserError
from megdet_hvd.job.abort import end_job
from megdet_hvd.job.horovod_settings import HorovodSettings
from megdet_hvd.job.log import start_log
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.memory.recompute import Recomputed
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.kernels import begun_with
from tests.engine.small import nothing_drawn, small_config

STOPPED_AT = 2
N = 27
"""Training pictures: 30 scenes, three of them without a box."""
BASE = (
    "learning.max_iterations=2",
    "learning.warmup_iterations=2",
    "learning.policy=normal",
    "learning.milestones=[]",
    "learning.epochs=auto",
    "model.backbone=resnet18",
    "data.scenes.val_images=6",
    "data.min_sizes=[48]",
    "data.max_size=64",
)


@dataclass
class Seen:
    """A resumed run, and what was seen while it took its steps."""

    run: Run
    plan: train.TrainingPlan
    loaders: list[TrainLoader] = field(default_factory=list)
    progress: list[TrainingProgress] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)
    """Of the first convolution's output in training."""
    evaluated: list[list[tuple[int, int]]] = field(default_factory=list)
    """Sizes of the pictures of each batch that was evaluated."""
    said: list[str] = field(default_factory=list)
    exact: bool = False
    """Whether torch's kernels were repeatable ones."""

    @property
    def steps(self) -> Any:
        return self.loaders[0]._steps

    @property
    def learned(self) -> dict[str, Any]:
        """Hyperparameters of the optimizer after the last step."""
        (group,) = self.run.optimizer.param_groups
        return {name: value for name, value in group.items() if name != "params"}

    def lines(self, kind: str) -> list[dict[str, Any]]:
        text = self.run.folder.metrics.read_text()
        found = [json.loads(line) for line in text.splitlines()]
        return [one for one in found if one["kind"] == kind and one["iteration"] > STOPPED_AT]


Effect = Callable[[Seen], object]


def layer(seen: Seen) -> CrossGPUBatchNorm2d:
    return next(m for m in seen.run.detector.modules() if isinstance(m, CrossGPUBatchNorm2d))


def sharing(seen: Seen) -> object:
    """Over two machines of two ranks."""
    assert seen.plan.resumption is not None
    before = mock.Mock(global_batch=0)
    with mock.patch.object(seen.plan.resumption, "before", before):
        return seen.plan.resumption.sharing(((0, 1), (2, 3)))


def derived(name: str) -> Effect:
    return lambda seen: getattr(seen.run.derived, name)


def ours(seen: Seen) -> Any:
    assert isinstance(seen.run.detector, Detector)
    return seen.run.detector


def rpn(name: str) -> Effect:
    return lambda seen: getattr(ours(seen).rpn.config, name)


def kernel(name: str) -> Effect:
    return lambda seen: begun_with(seen.run.detector)[name]


def roi(name: str) -> Effect:
    return lambda seen: getattr(ours(seen).roi_heads.config, name)


def pipeline(name: str) -> Effect:
    """As the pipeline is given it."""
    return lambda seen: getattr(seen.plan.config.pipeline, name)


def kept(seen: Seen) -> int:
    return len(list_checkpoints(seen.run.folder.checkpoints))


def job(seen: Seen) -> Any:
    return training_needs(seen.plan.config, seen.plan.resumption)


def refuses_other_bn_sizes(seen: Seen) -> bool:
    """Four ranks had shared statistics of 12 images, and one of two machines are there now."""
    assert seen.plan.resumption is not None and seen.plan.resumption.before is not None
    before = replace(seen.plan.resumption.before, processes=4, bn_images=(12,))
    with mock.patch.object(seen.plan.resumption, "before", before):
        try:
            seen.plan.resumption.elastic_resume(((0,), (1,)))
        except UserError:
            return True
    return False


def stops_where_it_cannot_write(seen: Seen) -> bool:
    with (
        mock.patch.object(saving, "save_checkpoint", side_effect=OSError("full")),
        mock.patch.object(seen.run, "iteration", STOPPED_AT + 1),
    ):
        try:
            saving.save(seen.run)
        except RunError:
            return True
    return False


def recomputes(seen: Seen) -> bool:
    modules = seen.run.detector.modules()
    return any(isinstance(v, Recomputed) for m in modules for v in vars(m).values())


def paths(name: str) -> Effect:
    def read(seen: Seen) -> list[str]:
        return [str(f) for f in getattr(seen.run.data, name).annotation_files]

    return read


Round = dict[str, tuple[str, Effect, object]]
"""Setting: new value, what is read back, what it must be."""


def schedules() -> Iterator[Round]:
    yield {
        "learning.base_rate": ("0.04", derived("peak_rate"), 0.04 * 12 / 8 * 0.5),
        "learning.base_batch": ("8", derived("peak_rate"), 0.03),
        "learning.rate_factor": ("0.5", derived("peak_rate"), 0.03),
        "learning.warmup_iterations": ("6", derived("warmup_iterations"), 6),
        "learning.warmup_start_rate": ("0.001", derived("warmup_start_rate"), 0.001),
        "learning.policy": ("long", derived("policy_iterations"), -(-18 * N // 12)),
        "learning.max_iterations": ("4", lambda seen: seen.run.iteration, 4),
        "learning.momentum": ("0.5", lambda seen: seen.learned["momentum"], 0.5),
        "learning.weight_decay": ("0.05", lambda seen: seen.learned["weight_decay"], 0.05),
        "learning.gradient_clip": ("0.25", lambda seen: set(seen.clipped), {0.25}),
        "learning.accumulation": ("2", lambda seen: seen.steps.accumulation, 2),
        "horovod.compression": ("fp16", lambda seen: seen.run.optimizer._compression.half, True),
        "horovod.predivide": ("2", lambda seen: seen.run.optimizer._compression.before, 0.5),
        "horovod.fusion_threshold_mib": (
            "5",
            lambda seen: job(seen).horovod.fusion_threshold_mib,
            5,
        ),
        "horovod.cycle_time_ms": ("2.5", lambda seen: job(seen).horovod.cycle_time_ms, 2.5),
        "horovod.gradients": ("as_ready", lambda seen: seen.run.optimizer._groups, None),
        "resume.other_bn_size": ("continue", refuses_other_bn_sizes, False),
        "watchdog.seconds": ("7", lambda seen: job(seen).watchdog_s, 7.0),
        "preflight": ("never", lambda seen: job(seen).facts, None),
        "log.every_iterations": ("2", lambda seen: len(seen.lines("train")), 1),
        "log.progress": ("bar", lambda seen: seen.progress[0]._bar is not None, True),
        "log.loggers": (
            "[tests.extending.parts:Lines]",
            lambda seen: (seen.run.folder.path / "lines.txt").read_text().split("\n")[0],
            f"from {STOPPED_AT}",
        ),
        "log.tensorboard": ("true", lambda seen: any(seen.run.folder.tensorboard.iterdir()), True),
        "pipeline.evaluators": ("3", pipeline("evaluators"), 3),
        "pipeline.max_side": ("500", pipeline("max_side"), 500),
        "pipeline.folder": ("/somewhere", pipeline("folder"), "/somewhere"),
        "checkpoint.keep": ("1", kept, 1),
    }
    yield {
        "learning.scaling": ("sqrt", derived("peak_rate"), 0.02 * (12 / 16) ** 0.5),
        "learning.policy": ("custom", derived("milestone_iterations"), (3,)),
        "learning.epochs": ("1.6", derived("policy_iterations"), 4),
        "learning.milestones": (
            "[{epoch: 1.2, factor: 0.5}]",
            lambda seen: [line["rate"] for line in seen.lines("train")],
            [0.02 * (12 / 16) ** 0.5, 0.02 * (12 / 16) ** 0.5 / 2],
        ),
        "learning.max_iterations": ("null", derived("end_iteration"), 4),
        "deterministic": (
            "true",
            lambda seen: seen.exact,
            True,
        ),
        "memory.checkpoint": ("blocks", recomputes, True),
        "checkpoint.every_epochs": ("0", lambda seen: checkpoint_due(seen.run, 3), True),
        "checkpoint.every_iterations": ("3", lambda seen: checkpoint_due(seen.run, 3), True),
        "evaluation.every_epochs": (
            "1",
            lambda seen: [i for i in range(1, 5) if evaluation_due(seen.run, i, 99)],
            [3],
        ),
        "learning.momentum": ("0", lambda seen: seen.learned["momentum"], 0.0),
        "checkpoint.on_error": ("stop", stops_where_it_cannot_write, True),
    }
    yield {
        "learning.rate": ("0.007", derived("peak_rate"), 0.007),
        "learning.warmup_iterations": ("auto", derived("warmup_iterations"), 4),
        "learning.warmup_images": ("48", derived("warmup_iterations"), 4),
        "learning.large_batch": ("ignore", lambda s: s.run.config.learning.large_batch, "ignore"),
        "learning.max_iterations": ("3", lambda seen: seen.run.iteration, 3),
        "precision": ("bfloat16", lambda seen: seen.dtypes, {torch.bfloat16}),
        "device": ("auto", lambda seen: seen.run.device.type in ("cpu", "cuda"), True),
        "bn.size": ("4", lambda seen: layer(seen).images_per_statistic, 4),
        "bn.scope": ("world", sharing, tuple((r,) for r in range(4))),
        "bn.carrier": ("mpi", lambda seen: layer(seen).carrier_kind, "mpi"),
        "bn.kernels": ("torch", kernel("bn"), "torch"),
        "model.norm_momentum": ("0.3", lambda seen: layer(seen).momentum, 0.3),
    }


def detectors(folder: Path) -> Iterator[Round]:
    yield {
        "data.min_sizes": ("[40]", lambda seen: seen.steps.transform.min_sizes, (40,)),
        "data.max_size": ("80", lambda seen: seen.steps.transform.max_size, 80),
        "data.flip_probability": ("0", lambda s: s.steps.transform.flip_probability, 0.0),
        "data.resize": ("pillow", lambda seen: seen.steps.transform.resizer, "pillow"),
        "data.value_range": ("[0,4095]", lambda s: s.run.data.train.value_range, (0.0, 4095.0)),
        "data.eval_min_size": ("32", lambda s: {min(p) for b in s.evaluated for p in b}, {32}),
        "data.workers": ("1", lambda seen: seen.loaders[0].workers, 1),
        "data.scenes.val_images": ("5", lambda seen: len(seen.run.data.val or ()), 5),
        "data.scenes.cache": (
            str(folder / "other"),
            lambda seen: paths("train")(seen)[0].startswith(str(folder / "other")),  # type: ignore[index]
            True,
        ),
        "data.index_cache": (
            str(folder / "kept"),
            lambda seen: len(list((folder / "kept" / "index").glob("*.index"))),
            2,
        ),
        "evaluation.images_per_process": ("3", lambda s: max(map(len, s.evaluated)), 3),
        "evaluation.measures": (
            "[tests.extending.parts:pictures]",
            lambda seen: seen.lines("eval")[-1]["pictures"],
            4.0,
        ),
        "evaluation.max_images": ("4", lambda s: sum(map(len, s.evaluated)), 4),
        "model.rpn.anchors_per_image": ("64", rpn("anchors_per_image"), 64),
        "model.rpn.positive_fraction": ("0.4", rpn("positive_fraction"), 0.4),
        "model.rpn.foreground_iou": ("0.6", rpn("foreground_iou"), 0.6),
        "model.rpn.background_iou": ("0.2", rpn("background_iou"), 0.2),
        "model.rpn.pre_nms_train": ("70", rpn("pre_nms_train"), 70),
        "model.rpn.pre_nms_test": ("60", rpn("pre_nms_test"), 60),
        "model.rpn.post_nms_train": ("30", rpn("post_nms_train"), 30),
        "model.rpn.post_nms_test": ("20", rpn("post_nms_test"), 20),
        "model.rpn.nms_iou": ("0.65", rpn("nms_iou"), 0.65),
        "model.memory_format": ("contiguous", kernel("memory_format"), "contiguous"),
        "model.rpn.gradient": ("dense", kernel("rpn_gradient"), "dense"),
        "model.roi.align": ("torchvision", kernel("roi_align"), "torchvision"),
        "model.roi.linear": ("torch", kernel("linear"), "torch"),
        "model.roi.boxes_per_image": ("8", roi("boxes_per_image"), 8),
        "model.roi.positive_fraction": ("0.3", roi("positive_fraction"), 0.3),
        "model.roi.foreground_iou": ("0.4", roi("foreground_iou"), 0.4),
        "model.roi.score_threshold": ("0.1", roi("score_threshold"), 0.1),
        "model.roi.nms_iou": ("0.45", roi("nms_iou"), 0.45),
        "model.roi.detections_per_image": ("7", roi("detections_per_image"), 7),
        "learning.max_iterations": ("3", lambda seen: seen.run.iteration, 3),
    }


def files(folder: Path, config: Config) -> Iterator[Round]:
    """The same pictures as COCO files: none without boxes, one of no area, many files cut off."""
    scenes = ensure_scenes(config.data.scenes)
    found = {}
    for name, source in (("train", scenes.train), ("val", scenes.val)):
        tree = json.loads(source.annotations.read_text())
        if name == "train":
            box = {**tree["annotations"][0], "id": 10**6, "bbox": [5, 5, 0, 9]}
            tree["annotations"].append(box)
            useful = {one["image_id"] for one in tree["annotations"]}
            tree["images"] = [one for one in tree["images"] if one["id"] in useful]
            assert len(tree["images"]) == N
        shutil.copytree(source.images, folder / f"{name}-pictures")
        found[name] = folder / f"{name}.json"
        found[name].write_text(json.dumps(tree))
    for picture in sorted((folder / "train-pictures").rglob("*.*"))[:20]:
        picture.write_bytes(picture.read_bytes()[:100])

    def where(name: str) -> str:
        pictures = folder / f"{name}-pictures"
        return json.dumps([{"annotations": str(found[name]), "images": str(pictures)}])

    yield {
        "data.kind": ("coco", paths("train"), [str(found["train"])]),
        "data.train": (where("train"), paths("train"), [str(found["train"])]),
        "data.val": (where("val"), paths("val"), [str(found["val"])]),
        "data.invalid_boxes": ("drop", lambda seen: len(seen.run.data.train), N),
        "data.keep_empty": ("true", lambda seen: len(seen.run.data.train), N),
        "data.unreadable_images": ("skip", lambda s: s.lines("train")[-1]["skipped"] > 0, True),
        "learning.max_iterations": ("3", lambda seen: seen.run.iteration, 3),
    }


def own() -> Round:
    """The same pictures as a data set of one's own."""
    name = "tests.extending.parts:scenes"
    return {
        "data.kind": ("own", lambda seen: seen.run.data.train.folders, (Path(),)),
        "data.dataset": (name, paths("train"), [f"{name}('train')"]),
        "learning.max_iterations": ("3", lambda seen: seen.run.iteration, 3),
    }


class Check:
    """One run of STOPPED_AT steps, carried on again and again from copies of its folder."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.config = small_config(folder, BASE)
        self.whole = folder / "runs" / "whole"
        run = prepare_run(self.config, world, self.whole, resume=False)
        with nothing_drawn():
            engine_run.execute(run)
        self.pictures = run.data.train
        self.count = 0
        self.tried: set[str] = set()

    def copy(self) -> Path:
        self.count += 1
        copy = self.folder / "runs" / f"copy-{self.count}"
        shutil.copytree(self.whole, copy)
        return copy

    @contextmanager
    def watched(self, seen: Seen) -> Iterator[None]:
        """Notes what ``seen.run`` does."""

        def noted(kind: type[Any], into: list[Any]) -> Callable[..., Any]:
            def make(*arguments: Any, **words: Any) -> Any:
                into.append(kind(*arguments, **words))
                return into[-1]

            return make

        def looked_at(detector: Detector, given: tuple[Any, ...]) -> None:
            if not detector.training:
                seen.evaluated.append([info.size for info in given[0].infos])

        def computed(module: torch.nn.Module, _: Any, out: torch.Tensor) -> None:
            if module.training:
                seen.dtypes.add(out.dtype)

        clip = torch.nn.utils.clip_grads_with_norm_

        def clipped(parameters: Any, most: float, norm: Any) -> None:
            seen.clipped.append(most)
            clip(parameters, most, norm)

        detector = ours(seen)
        hooks = [
            detector.register_forward_pre_hook(looked_at),
            detector.backbone.body["conv1"].register_forward_hook(computed),
        ]
        with (
            nothing_drawn(),
            mock.patch.object(engine_run, "TrainLoader", noted(TrainLoader, seen.loaders)),
            mock.patch.object(
                engine_run, "TrainingProgress", noted(TrainingProgress, seen.progress)
            ),
            mock.patch.object(torch.nn.utils, "clip_grads_with_norm_", clipped),
        ):
            yield
        for hook in hooks:
            hook.remove()

    def carry_on(self, path: Path, words: list[str], **more: Any) -> Seen:
        """As ``python -m megdet_hvd.train`` does it."""
        plan = train.make_training_plan(TrainArguments(**{
            "config": None, "overrides": tuple(words), "resume": True, "run_folder": path, **more
        }))  # fmt: skip
        assert plan.resumption is not None
        config = plan.resumption.elastic_resume(self.world.machines).config
        least = 0 if config.data.index_cache != "auto" else WORTH_IT_BYTES
        with mock.patch.object(index_cache, "WORTH_IT_BYTES", least):
            run = prepare_run(config, self.world, path, resume=True)
        seen = Seen(run, plan)
        handler = logging.Handler()
        handler.emit = lambda record: seen.said.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("megdet_hvd")
        logger.addHandler(handler)
        announce(run)
        logger.removeHandler(handler)
        with self.watched(seen):
            engine_run.execute(run)
        seen.exact = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        return seen

    def applied(self, changes: Round) -> Seen:
        """All of ``changes`` at once; each must be in effect, and have its line in the log."""
        path = self.copy()
        seen = self.carry_on(path, [f"{key}={value}" for key, (value, *_) in changes.items()])
        for key, (value, effect, expected) in changes.items():
            found = effect(seen)
            same = found == expected or (
                isinstance(found, float)
                and isinstance(expected, float)
                and abs(found - expected) < 1e-12
            )
            assert same, f"{key}={value}: {found!r} in effect instead of {expected!r}"
        said = [line for line in seen.said if " in the checkpoint and is " in line]
        assert {line.split()[0] for line in said} == set(changes), said
        assert load_checkpoint(path)["config"] == json.loads(seen.run.config.model_dump_json())
        self.tried |= changes.keys()
        return seen


def never(check: Check) -> None:
    """What has no effect: a warning each, and the run goes on in its folder with its weights."""
    changes = {
        "output": "elsewhere",
        "name": "other",
        "model.backbone_weights": "/there/is/none.pt",
        "model.init_from": "/there/is/none.pt",
        "evaluation.untrained": "true",
    }
    path = check.copy()
    before = load_checkpoint(path)["model"]
    with mock.patch.object(engine_run, "train_steps", lambda *_: iter(())):
        seen = check.carry_on(path, [f"{key}={value}" for key, value in changes.items()])
    assert seen.run.folder.path == path and not Path("elsewhere").exists()
    state = seen.run.detector.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.items())
    assert not seen.lines("eval")
    warned = [line for line in seen.said if ", which has no effect: " in line]
    assert [line.split()[1] for line in warned] == list(changes), seen.said
    assert set(changes) == {key for key, rule in RULES.items() if rule.answer == "no effect"}
    check.tried |= set(changes)


REFUSED = {
    "global_batch": "6",
    "seed": "1",
    "data.aspect_grouping": "0",
    "data.scenes.train_images": "31",
    "data.scenes.size": "80",
    "model.backbone": "resnet50",
    "model.norm": "bn",
    "model.norm_eps": "0.001",
    "model.frozen_stages": "2",
    "model.fpn_channels": "32",
    "model.fpn_norm": "same",
    "model.anchor_sizes": "[8,16,32,64,100]",
    "model.anchor_ratios": "[0.5,1.0,1.5]",
    "model.rpn.conv_depth": "2",
    "model.roi.head": "conv",
    "model.roi.width": "64",
    "model.roi.norm": "same",
    "learning.decay_bn": "false",
    "model.detector": "tests.extending.parts:tiny",
    "learning.optimizer": "tests.extending.parts:build",
}


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except UserError as error:
        assert "\n" not in str(error), error
        return str(error)
    raise AssertionError("it was not refused")


def refused(check: Check) -> None:
    """Both where the command line is read, and where a checkpoint is taken up."""
    assert set(REFUSED) == {key for key, rule in RULES.items() if rule.answer == "refused"}
    path = check.copy()
    content, pictures, nothing = load_checkpoint(path), check.pictures, torch.nn.Identity()
    for key, value in REFUSED.items():
        told = refusal(partial(check.carry_on, path, [f"{key}={value}"]))
        assert told.startswith(f"resume: {key} was ") and RULES[key].words in told, told
        config = override(check.config, [f"{key}={value}"])
        late = refusal(
            partial(restore_state, content, nothing, None, None, config, pictures, check.world)
        )
        assert late == told
    check.tried |= set(REFUSED)
    frozen = override(check.config, ["model.norm=frozen", "model.frozen_stages=2"])
    told = refusal(lambda: prepare_run(frozen, check.world, path, resume=True))
    assert told.startswith("resume: model.norm was cgbn") and "model.frozen_stages was 0" in told
    told = refusal(lambda: check.carry_on(path, ["learning.max_iterations=1"]))
    assert "the run would end after iteration 1, and the checkpoint is of iteration 2" in told
    told = refusal(lambda: check.carry_on(path, ["seed=1", "model.norm=none"]))
    assert "seed was 0 in the checkpoint and is 1 now" in told and "; model.norm was" in told
    assert [p.name for p in list_checkpoints(path / "checkpoints")] == ["iteration_00000002.pt"]


def other_pictures(check: Check) -> None:
    """Annotation files that are not those of the run."""
    scenes = ensure_scenes(check.config.data.scenes)
    tree = json.loads(scenes.train.annotations.read_text())
    file = check.folder / "others.json"
    source = json.dumps([{"annotations": str(file), "images": str(scenes.train.images)}])
    words = ["data.kind=coco", f"data.train={source}"]

    def told(images: list[Any], categories: list[Any]) -> str:
        ids = {image["id"] for image in images}
        boxes = [one for one in tree["annotations"] if one["image_id"] in ids]
        changed = {"images": images, "categories": categories, "annotations": boxes}
        file.write_text(json.dumps(changed))
        return refusal(lambda: check.carry_on(path, words))

    path = check.copy()
    images, categories = tree["images"], tree["categories"]
    full = {one["image_id"] for one in tree["annotations"]}
    first = next(one for one in images if one["id"] in full)
    fewer = told([one for one in images if one is not first], categories)
    assert "number of training pictures was 27 in the checkpoint and is 26" in fewer
    kept = refusal(lambda: check.carry_on(path, ["data.keep_empty=true"]))
    assert "number of training pictures was 27 in the checkpoint and is 30" in kept
    renamed = [{**one, "name": "zebra"} if i == 1 else one for i, one in enumerate(categories)]
    assert "and is 6 with 'zebra' now" in told(images, renamed)
    assert "have other ids, or another order" in told(images[::-1], categories)


def edited(check: Check) -> None:
    """The same from a file: the run folder's own, edited, and another one with --run."""
    words = ["learning.weight_decay=0.03", "bn.size=6", "learning.max_iterations=3"]
    text = to_yaml(override(check.config, words))
    for own in (True, False):
        path = check.copy()
        file = path / "config.yaml" if own else path.with_suffix(".yaml")
        more: dict[str, Any] = (
            {} if own else {"resume": False, "run_folder": None, "config": file, "run": path}
        )
        file.write_text(text)
        seen = check.carry_on(path, [], **more)
        assert seen.learned["weight_decay"] == 0.03
        assert layer(seen).images_per_statistic == 6
        file.write_text(to_yaml(override(load_config(file), ["learning.decay_bn=false"])))
        told = refusal(partial(check.carry_on, path, [], **more))
        assert told.startswith("resume: learning.decay_bn was true"), told


def main() -> None:
    folder = Path(sys.argv[1])
    world = start(settings=HorovodSettings(deterministic=True))
    start_log(world)
    torch.set_num_threads(1)
    check = Check(folder, world)
    for changes in schedules():
        check.applied(changes)
    otherwise = "mmAP was measured otherwise up to iteration 2: best.pt is chosen among later ones"
    for changes in detectors(folder):
        seen = check.applied(changes)
        assert otherwise in seen.said and seen.run.compared_after == STOPPED_AT
        assert seen.run.best_ap == seen.lines("eval")[-1]["AP"]
    for changes in files(folder, check.config):  # the validation pictures have only moved
        assert otherwise not in check.applied(changes).said
    assert otherwise not in check.applied(own()).said
    never(check)
    refused(check)
    other_pictures(check)
    edited(check)
    assert check.tried == set(valid_keys()) == set(RULES), check.tried ^ set(valid_keys())
    stop()
    code = train.main(["--resume", str(check.whole), "learning.decay_bn=false"])
    print(f"every setting has been changed; a refused one ended with {code}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        print(traceback.format_exc(), flush=True)
        end_job(1)
