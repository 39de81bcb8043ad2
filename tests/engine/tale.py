"""A run without a detector: steps, weights and measurements are made up.

Periods, files and metrics are those of a real run.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from megdet_hvd.checkpoint.atomic import write_atomically
from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.checkpoint.naming import BEST, iteration_of, list_checkpoints
from megdet_hvd.engine.prepare import Run, _take_up
from megdet_hvd.engine.run import execute
from megdet_hvd.engine.run_folder.best import best_ap_of
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.engine.run_folder.pictures import RunPictures
from megdet_hvd.engine.step.loop import Step
from megdet_hvd.engine.step.status import StepStatus
from megdet_hvd.job import stopping
from megdet_hvd.job.world import World
from megdet_hvd.model.detector import LOSSES
from tests.engine.small import small_config

ALONE = World(0, 1, ((0,),), 1, "plain python")
STATUS = StepStatus(dict.fromkeys(LOSSES, 1.0), 4, 0, {})
FULL = OSError(28, "No space left on device")


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
    drawn: bool = False
    """Whether pictures are drawn."""
    run_now: Any = None
    """The run at its end."""
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
                "run.RunPictures": RunPictures if self.drawn else mock.Mock(),
                "evaluate_in_line.Validation": self._validation,
                "saving.capture_state": self._state,
                "saving.measure": lambda *_: "as ever",
                "prepare.measure": lambda *_: "as ever",
                "prepare.changes": lambda *_: (),
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
            self.run_now = run
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
            return SimpleNamespace(result=SimpleNamespace(ap=ap), detections={})

        return SimpleNamespace(run=measure)

    def _state(self, *_: Any, **facts: Any) -> dict[str, Any]:
        needed = {"config": {}, "categories": [], "category_ids": [], "images_seen": 0}
        return {**needed, "model": {}, "weights": facts["iteration"], **facts}

    def _write(self, path: Path, *how: Any) -> None:
        if path.name in self.unwritable:
            raise FULL
        write_atomically(path, *how)

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
