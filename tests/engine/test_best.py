"""``best.pt`` is the state that was measured, whatever falls due when: runs without a detector.

Steps, weights and measurements are made up; periods, files and metrics are those of a real run.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.checkpoint.atomic import write_atomically
from megdet_hvd.checkpoint.copying import copy_durably
from megdet_hvd.checkpoint.file import load_checkpoint, save_checkpoint
from megdet_hvd.checkpoint.naming import BEST, checkpoint_name, iteration_of, list_checkpoints
from megdet_hvd.checkpoint.recovery import bring_back_best
from megdet_hvd.checkpoint.retention import mark_best
from megdet_hvd.comm import stopping
from megdet_hvd.comm.world import World
from megdet_hvd.engine.best import best_ap_of, is_better
from megdet_hvd.engine.loop import Step
from megdet_hvd.engine.prepare import Run, _take_up
from megdet_hvd.engine.run import execute
from megdet_hvd.engine.run_folder import RunFolder
from megdet_hvd.engine.status import StepStatus
from megdet_hvd.errors import RunError
from megdet_hvd.report.metrics_file import read_metrics
from tests.engine.small import small_config

ALONE = World(0, 1, ((0,),), 1, "plain python")
STATUS = StepStatus({}, 4, 0, {})
FULL = OSError(errno.ENOSPC, "No space left on device")


@dataclass
class Tale:
    """A run of 24 pictures in batches of 4: an epoch is 6 steps."""

    folder: Path
    aps: Mapping[int, float]
    """What a measurement after an iteration finds."""
    settings: tuple[str, ...]
    end: int = 12
    unwritable: frozenset[str] = frozenset()
    """Files that the disk has no room for."""
    stop_at: int | None = None
    """Somebody wants it to stop while it is measured after this step."""
    crash_at: int | None = None
    """It is killed in this step."""
    measured: list[int] = field(default_factory=list)

    @property
    def files(self) -> RunFolder:
        return RunFolder(self.folder / "run")

    def run(self, **changes: Any) -> "Tale":
        """From the beginning, or carried on from the newest checkpoint."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.files.checkpoints.mkdir(parents=True, exist_ok=True)
        more = ["global_batch=4", f"learning.max_iterations={self.end}", *self.settings]
        config = small_config(self.folder, more)
        run = Run(
            config=config,
            world=ALONE,
            folder=self.files,
            device=mock.Mock(),
            data=SimpleNamespace(train=range(24), val=object()),  # type: ignore[arg-type]
            derived=SimpleNamespace(end_iteration=self.end),  # type: ignore[arg-type]
            detector=mock.Mock(),
            optimizer=None,
            scaler=None,
            shared_statistics=True,
            recomputation="",
        )
        with ExitStack() as patched:
            for name, value in {
                "run.TrainLoader": mock.Mock(),
                "run._steps": self._steps,
                "run.Progress": mock.MagicMock(),
                "run._count": mock.Mock(),
                "run.RunPictures": mock.Mock(),
                "evaluations.Validation": self._validation,
                "saving.capture_state": self._state,
                "prepare.restore_state": lambda state, *_: state["iteration"],
            }.items():
                patched.enter_context(mock.patch(f"megdet_hvd.engine.{name}", value))
            patched.enter_context(
                mock.patch("megdet_hvd.checkpoint.file.write_atomically", self._write)
            )
            if list_checkpoints(self.files.checkpoints):
                state = load_checkpoint(self.files.path)
                state["best_ap"] = best_ap_of(self.files, state["best_ap"])
                _take_up(run, state)
            try:
                execute(run)
            except InterruptedError:
                assert self.crash_at is not None
            finally:
                stopping.forget()
        return self

    def _steps(self, run: Run, loader: Any) -> Iterator[Step]:
        for iteration in range(run.iteration + 1, self.end + 1):
            if iteration == self.crash_at:
                raise InterruptedError("killed")
            yield Step(iteration, STATUS, 0.1, 0.0)

    def _validation(self, *arguments: Any) -> Any:
        metrics = arguments[4]

        def measure(detector: Any, iteration: int, epoch: float) -> Any:
            if iteration == self.stop_at:
                stopping.request("enough")
                raise stopping.StopRequested("enough")
            self.measured.append(iteration)
            ap = self.aps[iteration]
            metrics.write("eval", iteration, epoch=epoch, AP=ap, AP50=ap)
            return SimpleNamespace(result=SimpleNamespace(ap=ap))

        return SimpleNamespace(run=measure)

    def _state(self, *_: Any, **facts: Any) -> dict[str, Any]:
        needed = {"config": {}, "categories": [], "category_ids": [], "images_seen": 0}
        return {**needed, "model": {}, "weights": facts["iteration"], **facts}

    def _write(self, path: Path, write: Any) -> None:
        if path.name in self.unwritable:
            raise FULL
        write_atomically(path, write)

    def kept(self) -> dict[str | int, tuple[int, float | None]]:
        """Of each checkpoint: which weights it holds, and the mmAP that it says of them."""
        found: dict[str | int, tuple[int, float | None]] = {}
        for path in [*list_checkpoints(self.files.checkpoints), self.files.checkpoints / BEST]:
            if path.exists():
                state = load_checkpoint(path)
                assert state["weights"] == state["iteration"]
                found[iteration_of(path) or BEST] = state["iteration"], state["ap"]
        for name, (iteration, ap) in found.items():
            assert ap is None or repr(self.aps[iteration]) == repr(ap), (
                f"{name} says another one's mmAP"
            )
        return found


UNEQUAL = (
    "evaluation.every_epochs=0.5",  # after 3, 6, 9, 12
    "checkpoint.every_epochs=0",
    "checkpoint.every_iterations=4",
    "checkpoint.keep=9",
)


@pytest.mark.parametrize(
    ("aps", "best"),
    [
        ({3: 0.1, 6: 0.3, 9: 0.2, 12: 0.1}, (6, 0.3)),  # no checkpoint is due there
        ({3: 0.1, 6: 0.2, 9: 0.2, 12: 0.4}, (12, 0.4)),
        ({3: 0.1, 6: 0.1, 9: 0.1, 12: 0.1}, (3, 0.1)),  # the first of equals
        ({3: float("nan"), 6: 0.0, 9: 0.0, 12: float("nan")}, (6, 0.0)),
    ],
)
def test_unequal_periods(aps: dict[int, float], best: tuple[int, float], tmp_path: Path) -> None:
    tale = Tale(tmp_path, aps, UNEQUAL).run()
    assert tale.measured == [3, 6, 9, 12]
    kept = tale.kept()
    assert kept[BEST] == best
    assert (kept[4], kept[8], kept[12][0]) == ((4, None), (8, None), 12)
    assert load_checkpoint(tale.files.checkpoints / checkpoint_name(8))["best_ap"] == max(
        ap for iteration, ap in aps.items() if iteration < 8 and ap == ap
    )


def test_the_untrained_detector_is_never_the_best(tmp_path: Path) -> None:
    aps = {0: 0.9, 6: 0.1, 12: 0.2}
    settings = ("evaluation.untrained=true", "evaluation.every_epochs=1", *UNEQUAL[1:])
    tale = Tale(tmp_path, aps, settings).run()
    assert tale.measured == [0, 6, 12]
    assert tale.kept() == {4: (4, None), 8: (8, None), 12: (12, 0.2), BEST: (12, 0.2)}


def test_a_checkpoint_that_could_not_be_written_leaves_its_ap_to_nobody(tmp_path: Path) -> None:
    aps = {3: 0.1, 6: 0.8, 9: 0.2, 12: 0.15}
    settings = ("evaluation.every_epochs=0.5", "checkpoint.every_epochs=0.5", "checkpoint.keep=9")
    full = frozenset({checkpoint_name(6)})
    tale = Tale(tmp_path, aps, settings, unwritable=full).run()
    assert tale.kept() == {3: (3, 0.1), 9: (9, 0.2), 12: (12, 0.15), BEST: (9, 0.2)}
    # The same of best.pt alone, with training that goes on, or stops.
    full = frozenset({BEST})
    tale = Tale(tmp_path / "b", {**aps, 12: 0.3}, UNEQUAL, unwritable=full).run()
    assert tale.kept()[BEST] == (12, 0.3), "the end's is a link"
    tale = Tale(tmp_path / "c", aps, (*UNEQUAL, "checkpoint.on_error=stop"), unwritable=full)
    with pytest.raises(RunError, match="iteration 3: the checkpoint could not be written"):
        tale.run()


def test_carried_on_it_keeps_the_same_best_one(tmp_path: Path) -> None:
    aps = {3: 0.1, 6: 0.3, 9: 0.35, 12: 0.2, 15: 0.32, 18: 0.1}
    whole = Tale(tmp_path / "whole", aps, UNEQUAL, end=18).run().kept()
    assert whole[BEST] == (9, 0.35)
    for name, parts in {
        "killed before the best": ({"crash_at": 8}, {"crash_at": None}),
        "killed after it": ({"crash_at": 11}, {"crash_at": None}),
        "stopped as it is measured": ({"stop_at": 9}, {"stop_at": None}),
        "twice": ({"stop_at": 6}, {"stop_at": None, "crash_at": 10}, {"crash_at": None}),
    }.items():
        tale = Tale(tmp_path / name, aps, UNEQUAL, end=18)
        for part in parts:
            tale.run(**part)
        kept = tale.kept()
        assert kept[BEST] == (9, 0.35), name
        assert {n: kept[n] for n in whole} == whole, name
        evaluated = [line["iteration"] for line in read_metrics(tale.files.metrics).eval]
        assert evaluated == [3, 6, 9, 12, 15, 18]


def test_a_best_one_that_was_measured_and_not_kept_stands_in_nobodys_way(tmp_path: Path) -> None:
    """The link could not be made: the checkpoint says an mmAP that best.pt does not have."""
    aps = {3: 0.1, 6: 0.3, 9: 0.2, 12: 0.25}
    settings = ("evaluation.every_epochs=0.5", "checkpoint.every_epochs=0.5", "checkpoint.keep=9")
    tale = Tale(tmp_path, aps, settings)
    with mock.patch("megdet_hvd.engine.saving.mark_best", side_effect=FULL):
        tale.run(crash_at=7)
    assert BEST not in tale.kept() and tale.kept()[6] == (6, 0.3)
    tale.run(crash_at=None)
    assert tale.kept()[BEST] == (12, 0.25)


def test_the_best_ones_own_ap(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    assert best_ap_of(folder, 0.5) is None, "it was lost: the next one measured takes its place"
    best = folder.checkpoints / BEST
    best.write_bytes(b"PK\x03\x04 and half of it")
    assert best_ap_of(folder, 0.5) == 0.5
    tale = Tale(tmp_path, {}, ())
    state = tale._state(iteration=7, ap=None, best_ap=None)
    save_checkpoint(best, state)
    assert best_ap_of(folder, 0.5) == 0.5
    folder.metrics.write_text('{"kind": "eval", "iteration": 7, "AP": 0.4}\n')
    assert best_ap_of(folder, 0.5) == 0.4, "measured alongside, after it was written"
    save_checkpoint(best, {**state, "ap": 0.3})
    assert best_ap_of(folder, 0.5) == 0.3
    assert is_better(0.0, None) and is_better(0.2, 0.1)
    assert not any((is_better(None, None), is_better(0.1, 0.1), is_better(float("nan"), None)))


def test_copies_are_on_the_disk_before_they_are_renamed(tmp_path: Path) -> None:
    """Where a file system has no links."""
    source = tmp_path / checkpoint_name(4)
    tale = Tale(tmp_path, {}, ())
    save_checkpoint(source, tale._state(iteration=4, ap=None, best_ap=None))
    done: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        done.append(f"fsync {os.readlink(f'/proc/self/fd/{handle}').rsplit('/', 1)[-1]}")
        real_sync(handle)

    def replace(old: Any, new: Any) -> None:
        done.append(f"rename {Path(old).name}")
        real_replace(old, new)

    def told() -> list[tuple[str, str]]:
        pairs = [(line.split()[0], line.split()[1]) for line in done]
        done.clear()
        return pairs

    with (
        mock.patch("os.link", side_effect=OSError(errno.EPERM, "no links here")),
        mock.patch("os.fsync", sync),
        mock.patch("os.replace", replace),
    ):
        mark_best(source)
        (_, copy), (what, renamed), *_ = told()
        assert what == "rename" and copy == renamed
        source.unlink()
        assert bring_back_best(tmp_path) == source
        (_, copy), (what, renamed), *_ = told()
        assert what == "rename" and copy == renamed
    assert source.read_bytes() == (tmp_path / BEST).read_bytes()
    copy_durably(source, tmp_path / "third")
    assert (tmp_path / "third").read_bytes() == source.read_bytes()
