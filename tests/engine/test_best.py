"""``best.pt`` is the state that was measured, whatever falls due when."""

import errno
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.checkpoint.file import load_checkpoint, save_checkpoint
from megdet_hvd.checkpoint.naming import BEST, checkpoint_name
from megdet_hvd.checkpoint.recovery import bring_back_best
from megdet_hvd.checkpoint.retention import mark_best
from megdet_hvd.engine.run_folder.best import best_ap_of, is_better
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.errors import RunError
from megdet_hvd.report.metrics_file import read_metrics
from tests.engine.tale import FULL, Tale

EQUAL = ("evaluation.every_epochs=0.5", "checkpoint.every_epochs=0.5", "checkpoint.keep=9")
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


def test_a_storage_that_gives_no_list_either_ends_no_run(tmp_path: Path) -> None:
    """The checkpoint can't be written, nor is it seen which others are good: it goes on."""
    aps = {3: 0.1, 6: 0.3, 9: 0.2, 12: 0.1}
    tale = Tale(tmp_path, aps, EQUAL, unwritable=frozenset({checkpoint_name(6)}))
    stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(tale.files.checkpoints))
    with (
        mock.patch("megdet_hvd.engine.saving.list_checkpoints", side_effect=stale) as listed,
        mock.patch("megdet_hvd.engine.saving.LOGGER") as log,
    ):
        tale.run()
    assert listed.call_count == 1 and tale.kept()[12] == (12, 0.1)
    assert "Stale file handle" in log.error.call_args[0][0]


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
    tale = Tale(tmp_path, aps, EQUAL)
    with mock.patch("megdet_hvd.engine.saving.mark_best", side_effect=FULL):
        tale.run(crash_at=7)
        assert BEST not in tale.kept() and tale.kept()[6] == (6, 0.3)
        tale.run(crash_at=8)
    with mock.patch("megdet_hvd.engine.run.catch_up"):
        tale.run(crash_at=None)
    assert tale.kept()[BEST] == (12, 0.25)


@pytest.mark.parametrize(("at", "before"), [(6, 3), (12, 6)])
def test_killed_before_the_best_one_is_marked(at: int, before: int, tmp_path: Path) -> None:
    """The checkpoint has its name, best.pt not yet: carried on, it is marked, at the end too."""

    def mark(path: Path) -> None:
        if path.name == checkpoint_name(at):
            raise SystemExit("killed")
        mark_best(path)

    tale = Tale(tmp_path, {3: 0.1, 6: 0.2, 9: 0.15, 12: 0.3 if at == 12 else 0.1}, EQUAL)
    with mock.patch("megdet_hvd.engine.saving.mark_best", mark), pytest.raises(SystemExit):
        tale.run()
    assert tale.kept()[BEST][0] == before and at in tale.kept()
    tale.run()
    assert tale.kept()[BEST] == (at, tale.aps[at]) and tale.run_now.best_ap == tale.aps[at]


@pytest.mark.parametrize("moment", ["measured", "written", "marked"])
def test_who_lost_the_run_while_it_was_stopped_writes_no_more(moment: str, tmp_path: Path) -> None:
    """Another process has taken the run over meanwhile, and its files lie there."""
    tale = Tale(tmp_path, {3: 0.1, 6: 0.3, 9: 0.2, 12: 0.1}, (*EQUAL, "checkpoint.keep=1"))
    lost: list[str] = []

    def still_ours(run: Any) -> None:
        if lost:
            raise RunError("another process has taken over this run")

    def lose(what: str, value: Any = None, *, true: Any = None) -> Any:
        found = true(value) if true is not None else value
        if what == moment and tale.measured == [3, 6]:
            lost.append(what)
        return found

    class Aps(dict[int, float]):
        def __getitem__(self, iteration: int) -> float:
            return float(lose("measured", super().__getitem__(iteration)))

    def save(path: Path, *how: Any, **more: Any) -> None:
        save_checkpoint(path, *how, **more)
        lose("written")

    tale.aps = Aps(tale.aps)
    with (
        mock.patch("megdet_hvd.engine.prepare.Run.still_ours", still_ours),
        mock.patch("megdet_hvd.engine.saving.save_checkpoint", save),
        mock.patch(
            "megdet_hvd.engine.saving.mark_best", lambda path: lose("marked", path, true=mark_best)
        ),
        pytest.raises(RunError, match="taken over"),
    ):
        tale.run()
    evaluated = [line["iteration"] for line in read_metrics(tale.files.metrics).eval]
    assert evaluated == ([3] if moment == "measured" else [3, 6])
    kept = tale.kept()
    assert kept[BEST][0] == (6 if moment == "marked" else 3)
    assert 3 in kept, "not ours to clear away"
    assert (6 in kept) == (moment != "measured")


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
    assert best_ap_of(folder, 0.5) == 0.4, "measured concurrently, after it was written"
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
