import dataclasses
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

from megdet_hvd.config.load import load_config
from megdet_hvd.data.batch import Batch, ImageInfo, Unreadable
from megdet_hvd.engine.periods import due_by_epochs, due_by_iterations
from megdet_hvd.engine.progress import TrainingProgress, wants_bar
from megdet_hvd.engine.run_detector import weights_file
from megdet_hvd.engine.run_folder.folder import RunFolder, create_run_folder, find_run, forget_after
from megdet_hvd.engine.run_folder.metrics import Metrics
from megdet_hvd.engine.step.loop import describe_images, share_of_mean, unreadable_problem
from megdet_hvd.engine.step.optimizer import parameter_groups
from megdet_hvd.engine.step.status import StatusMessage, StepStatus
from megdet_hvd.errors import RunError, UserError
from megdet_hvd.job.world import World
from megdet_hvd.model.balance import SampleBalance, drawn
from megdet_hvd.model.detector import LOSSES

ALONE = World(rank=0, size=1, machines=((0,),))


def test_periods_of_epochs_fall_due_at_the_first_step_at_or_after_them() -> None:
    # 10 pictures, batch 4: steps end after 4, 8, 12, 16, 20, … pictures
    assert [i for i in range(11) if due_by_epochs(i, 1, 10, 4)] == [3, 5, 8, 10]
    assert [i for i in range(11) if due_by_epochs(i, 0.5, 10, 4)] == [2, 3, 4, 5, 7, 8, 9, 10]
    assert [i for i in range(11) if due_by_epochs(i, 2, 10, 4)] == [5, 10]
    assert not any(due_by_epochs(i, 0, 10, 4) for i in range(11))


def test_periods_of_iterations() -> None:
    assert [i for i in range(7) if due_by_iterations(i, 3)] == [3, 6]
    assert not any(due_by_iterations(i, None) for i in range(7))


def test_shares_of_uneven_processes_average_to_the_mean_over_all_images() -> None:
    images = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    shares = [share_of_mean({"a": part}, 5, 3) for part in images.split([4, 0, 1])]
    assert float(sum(shares) / 3) == pytest.approx(31 / 5)


def test_weight_decay_on_all_parameters_or_on_all_but_those_of_bn() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    model[2].weight.requires_grad_(False)
    (everything,) = parameter_groups(model, 1e-4, decay_bn=True)
    assert len(everything["params"]) == 5 and everything["weight_decay"] == 1e-4
    decayed, rest = parameter_groups(model, 1e-4, decay_bn=False)
    assert len(decayed["params"]) == 3
    assert [id(p) for p in rest["params"]] == [id(p) for p in model[1].parameters()]
    assert rest["weight_decay"] == 0


def test_status_of_a_step_is_the_mean_over_images() -> None:
    message = StatusMessage(ALONE, torch.device("cpu"))
    for value, images in ((1.0, 2), (4.0, 1)):
        losses = {part: torch.full((images,), value) for part in LOSSES}
        message.add(losses, SampleBalance(), images, 1)
    message.send()
    status = message.read(5, "images 1, 2, 3")
    assert status.losses == dict.fromkeys(LOSSES, 2.0)
    assert (status.images, status.skipped, status.loss) == (3, 2, 8.0)


def test_the_status_tells_the_share_of_positives_and_its_spread_over_images() -> None:
    message = StatusMessage(ALONE, torch.device("cpu"))
    losses = {part: torch.zeros(2) for part in LOSSES}
    # Shares 1/2 and 0 in one pass, 1/4 and (nothing drawn) 0 in the next.
    message.add(losses, SampleBalance(drawn([4, 0], [8, 8]), drawn([1, 1], [4, 4])), 2, 0)
    message.add(losses, SampleBalance(drawn([2, 0], [8, 0]), drawn([1, 1], [4, 4])), 2, 0)
    message.send()
    balance = message.read(1, "").balance
    assert balance["rpn_foreground"] == 0.1875
    assert balance["rpn_foreground_spread"] == pytest.approx(statistics.pstdev([0.5, 0, 0.25, 0]))
    assert (balance["box_foreground"], balance["box_foreground_spread"]) == (0.25, 0.0)


def test_a_step_without_images_has_no_share_of_positives() -> None:
    message = StatusMessage(ALONE, torch.device("cpu"))
    message.add({part: torch.zeros(0) for part in LOSSES}, SampleBalance(), 0, 3)
    message.send()
    status = message.read(1, "no images")
    assert set(status.balance.values()) == {0.0} and status.images == 0


def test_a_non_finite_loss_is_named_with_its_parts_and_images() -> None:
    message = StatusMessage(ALONE, torch.device("cpu"))
    losses = {p: torch.tensor([math.inf if p == "box" else 1.0]) for p in LOSSES}
    message.add(losses, SampleBalance(), 1, 0)
    message.send()
    with pytest.raises(RunError, match=r"iteration 9: rank 0: .*box inf.*images 42"):
        message.read(9, "images 42")


def batch_with(unreadable: tuple[Unreadable, ...]) -> Batch:
    info = ImageInfo(0, 0, 42, 0, (4, 4), (4, 4))
    return Batch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), (info,), (), unreadable)


def test_unreadable_pictures_stop_the_rank_unless_they_are_skipped() -> None:
    bad = batch_with((Unreadable("a/b.jpg", "cut off"),))
    assert "a/b.jpg can't be read (cut off)" in (unreadable_problem([bad], "stop") or "")
    assert unreadable_problem([bad], "skip") is None
    assert unreadable_problem([batch_with(())], "stop") is None
    assert describe_images([bad]) == "images 42"
    named = ImageInfo(0, 0, 3, 0, (4, 4), (4, 4), original_id="frame_0004")
    assert describe_images([dataclasses.replace(bad, infos=(named,))]) == "images frame_0004"


def test_metrics_are_json_even_where_a_number_is_not(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.jsonl", None, 0)
    metrics.write("eval", 3, AP=math.nan, per_class={"a": math.inf, "b": 0.5})
    (line,) = (tmp_path / "m.jsonl").read_text().splitlines()
    expected = {"kind": "eval", "iteration": 3, "AP": None, "per_class": {"a": None, "b": 0.5}}
    assert json.loads(line) == expected


def test_metrics_after_the_checkpoint_are_forgotten_and_half_a_line_too(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iteration": 3}\n{"itera')
    forget_after(file, 2)
    assert file.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_tensorboard_files_hold_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path / "m.jsonl", tmp_path / "tb", 0)
    metrics.write("train", 5, loss=2.5)
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    (point,) = events.Scalars("train/loss")
    assert (point.step, point.value) == (5, 2.5)


def test_the_newest_run_with_a_checkpoint_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run with a checkpoint"):
        find_run(tmp_path)
    for name in ("a", "b", "without"):
        create_run_folder(tmp_path / name, "seed: 0\n")
    for name in ("b", "a"):
        (tmp_path / name / "checkpoints" / "iteration_00000001.pt").write_bytes(b"x")
    newest = tmp_path / "a" / "checkpoints" / "iteration_00000001.pt"
    import os

    os.utime(newest, (2e9, 2e9))
    assert find_run(tmp_path) == RunFolder(tmp_path / "a")


def test_a_bar_only_on_a_terminal_of_its_own() -> None:
    assert wants_bar("auto", "python", True)
    assert not wants_bar("auto", "mpirun", True)  # mpirun gives its processes a terminal
    assert not wants_bar("auto", "python", False)
    assert wants_bar("bar", "mpirun", False) and not wants_bar("lines", "python", True)


def status_of(loss: float) -> StepStatus:
    return StepStatus(dict.fromkeys(LOSSES, loss), 8, 0, {"rpn_foreground": loss / 10})


def test_progress_averages_over_the_interval() -> None:
    config = load_config(None, ["log.every_iterations=2", "log.progress=lines"])
    progress = TrainingProgress(config, "python", 0, 3, shown=False)
    assert progress.step(1, status_of(1.0), 0.1, 0.0) is None
    line = progress.step(2, status_of(3.0), 0.2, 0.0)
    assert line is not None and line["class"] == 2.0 and line["loss"] == 8.0
    assert line["rate"] == 0.2 and line["images_per_s"] == pytest.approx(8 / line["step_s"])
    assert line["rpn_foreground"] == pytest.approx(0.2)
    last = progress.step(3, status_of(1.0), 0.2, 0.0)  # the end is always shown
    assert last is not None and last["class"] == 1.0
    assert last["rpn_foreground"] == pytest.approx(0.1)


def test_time_outside_training_does_not_count_in_its_speed() -> None:
    config = load_config(None, ["log.every_iterations=1", "log.progress=lines"])
    progress = TrainingProgress(config, "python", 0, 1, shown=False)
    progress.outside(1e6)  # an evaluation before the first step, longer than all that passed
    line = progress.step(1, status_of(1.0), 0.1, 0.0)
    assert line is not None and line["step_s"] == pytest.approx(1e-9)


def test_init_from_takes_a_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"^model\.init_from=.*first: this folder holds no checkpoint"
    ):
        weights_file(str(run))
    for number in (100, 300, 200):
        (run / "checkpoints" / f"iteration_{number:08d}.pt").touch()
    newest = run / "checkpoints" / "iteration_00000300.pt"
    assert weights_file(str(run)) == weights_file(str(run / "checkpoints")) == str(newest)
    assert weights_file(str(newest)) == str(newest)
    assert weights_file("none.pth") == "none.pth", "files are for the reader to judge"
