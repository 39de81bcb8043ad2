"""What lands in the run folder: each file by itself."""

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.engine.run_folder.folder import (
    RunFolder,
    check_writable,
    create_run_folder,
    forget_after,
)
from megdet_hvd.engine.run_folder.lock import holding
from megdet_hvd.engine.run_folder.metrics import Metrics
from megdet_hvd.engine.run_folder.pictures import RunPictures
from megdet_hvd.engine.run_folder.summary import summary
from megdet_hvd.errors import UserError
from megdet_hvd.job.world import World
from megdet_hvd.report.metrics_file import read_metrics
from megdet_hvd.storage import temporary_beside

ALONE = World(rank=0, size=1, machines=((0,),))


def test_an_evaluation_that_is_made_up_for_is_not_there_twice(tmp_path: Path) -> None:
    lines = [{"kind": kind, "iteration": n} for n in (1, 2, 3) for kind in ("train", "eval")]
    for due, left in ((False, 4), (True, 3)):
        file = tmp_path / "m.jsonl"
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        forget_after(file, 2, evaluation_due=due)
        assert [json.loads(line) for line in file.read_text().splitlines()] == lines[:left]


def test_half_a_line_goes_and_no_line_is_written_behind_another(tmp_path: Path) -> None:
    """The power went in mid-line, or just before the end of a line."""
    file = tmp_path / "m.jsonl"
    for end in ('{"kind": "tr', '{"kind": "train", "iteration": 2}'):
        file.write_text(f'{{"kind": "train", "iteration": 1}}\n{end}', encoding="utf-8")
        forget_after(file, 2)
        kept = file.read_text(encoding="utf-8")
        assert kept.endswith("}\n")
        assert len(kept.splitlines()) == (1 if end.endswith("r") else 2)


def test_a_run_that_is_begun_anew_has_no_metrics_of_the_former(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path / "run", "seed: 0\n")
    folder.metrics.write_text('{"iteration": 1}\n')
    with pytest.raises(UserError, match="already holds a run"):
        create_run_folder(folder.path, "seed: 0\n")
    create_run_folder(folder.path, "seed: 1\n", anew=True)
    assert not folder.metrics.exists() and folder.config.read_text() == "seed: 1\n"
    (folder.checkpoints / "iteration_00000001.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="already holds a run"):
        create_run_folder(folder.path, "seed: 2\n", anew=True)


def test_a_run_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    check_writable(RunFolder(tmp_path))
    with (
        mock.patch("os.access", return_value=False),
        pytest.raises(UserError, match="mend its permissions"),
    ):
        check_writable(RunFolder(tmp_path))


def test_what_killed_writers_left_goes_once_the_folder_is_held(tmp_path: Path) -> None:
    torn = temporary_beside(tmp_path / "config.yaml")
    torn.write_text("se")
    with holding(tmp_path, ALONE) as lock:
        assert lock is not None and not torn.exists()
    assert tmp_path.is_dir(), "it was there before"


def test_a_line_after_one_that_was_cut_off_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    metrics = Metrics(file, None, 0)
    with mock.patch("pathlib.Path.open") as opened:
        opened.return_value.__enter__.return_value.write.side_effect = OSError(28, "full")
        metrics.write("train", 1)
    file.write_text('{"kind": "tr')
    metrics.write("train", 2)
    metrics.write("train", 3)
    torn, *whole = file.read_text().splitlines()
    assert torn == '{"kind": "tr' and [json.loads(line)["iteration"] for line in whole] == [2, 3]


def test_events_end_with_their_first_error(tmp_path: Path) -> None:
    """Its thread has ended: what is handed to it then is waited for, for ever."""
    with mock.patch("torch.utils.tensorboard.SummaryWriter") as made:
        metrics = Metrics(tmp_path / "m.jsonl", tmp_path / "tb", 7)
        assert made.call_args.kwargs == {"purge_step": 8}, "the 7th stays"
        writer = made.return_value
        writer.flush.side_effect = OSError(28, "full")
        metrics.write("train", 8, loss=1.0)
        metrics.write("train", 9, loss=1.0)
        metrics.close()
    assert writer.add_scalar.call_count == 1 and not writer.close.called
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(("first", "beside"), [(0, True), (3, False)])
def test_only_the_untrained_model_is_called_so(tmp_path: Path, first: int, beside: bool) -> None:
    folder = RunFolder(tmp_path)
    lines = [{"kind": "eval", "iteration": n, "AP": 0.25, "AP50": n / 8} for n in (first, 5)]
    folder.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    told = summary(folder, 5)
    untrained = "; the untrained model: 0.000" if beside else ""
    assert told[0] == (f"after 5 iterations: AP@.5 on validation 0.625{untrained}; mmAP 0.250")
    assert told[1] == f"checkpoint: {folder.checkpoints}"


def test_rank_0_alone_draws(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.touch()
    data: Any = SimpleNamespace(val=object())
    for rank in (0, 1):
        world = World(rank, 2, ((0, 1),))
        with (
            mock.patch("megdet_hvd.report.curves.draw_curves") as curves,
            mock.patch("megdet_hvd.report.detections.draw_detections") as boxes,
        ):
            RunPictures(folder, data, world).draw(mock.Mock())
        assert curves.call_count == boxes.call_count == 1 - rank


def test_forgetting_holds_one_line_at_a_time(tmp_path: Path) -> None:
    """Of a file of 8 MB no more than a small part is in memory at once."""
    folder = RunFolder(tmp_path)
    line = '{"kind": "train", "iteration": %d, "loss": "' + "x" * 4000 + '"}\n'
    folder.metrics.write_text("".join(line % i for i in range(2000)))
    tracemalloc.start()
    try:
        forget_after(folder.metrics, 1500)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(read_metrics(folder.metrics).train) == 1501
    assert peak < 1_000_000
