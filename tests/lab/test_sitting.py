"""Trainings of the lab, end to end, on few small pictures."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import torch

from megdet_hvd.config.derive import Derived, derive
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError
from megdet_hvd.lab import __main__ as lab
from megdet_hvd.lab.backbone import weights_digest
from megdet_hvd.lab.own_words import settled
from megdet_hvd.lab.report import NOT_RUN
from megdet_hvd.lab.runs import (
    BASELINES,
    BN_SIZE_RUNS,
    FIGURE4,
    TABLE2,
    TABLE3,
    LabRun,
    cgbn,
    judged_runs,
    rate_runs,
)
from megdet_hvd.lab.scale import FULL, GRADUAL, QUICK, LabScale
from megdet_hvd.lab.sitting import Sitting
from megdet_hvd.lab.training import Training
from megdet_hvd.plan.paper_run import paper_rows
from megdet_hvd.run_lock.lock import take

SMALL = (
    "data.scenes.train_images=16",
    "data.scenes.val_images=4",
    "data.scenes.size=64",
    "data.min_sizes=[64]",
    "data.max_size=64",
    "model.backbone_weights=null",
    "device=cpu",
)
"""Without a backbone of its own: it would take longer than all else."""


@pytest.mark.tail  # the rules: test_divergence.py, test_records.py
def test_missing_records_are_made_once_and_what_diverges_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*SMALL, f"data.scenes.cache={tmp_path / 'cache'}")
    sitting = Sitting(QUICK, tmp_path / "out", tmp_path / "work", overrides=overrides)
    trains = cgbn(8, bn_size=4, recalibrated=True)  # no row of an experiment: its own name
    wild = LabRun(8, "frozen", rate_factor=1e9)
    sitting.train((trains, wild), seed=0)
    records = sitting.of_seed(0)
    good, bad = records.read(trains.name), records.read(wild.name)
    assert good is not None and bad is not None
    assert good["diverged"] is None and good["updates"] == 4
    assert good["scores"][-1]["AP"] >= 0 and good["recalibrated"]["pictures"] == 512
    assert [i for i, _ in good["loss"]] == [1, 2, 3, 4]
    assert bad["diverged"]["why"] == "the loss is not finite" and bad["scores"] == []
    assert not (tmp_path / "work" / "quick-seed0" / trains.name).exists()
    before = records.file(trains.name).stat().st_mtime_ns
    capsys.readouterr()
    sitting.train((trains, wild), seed=0)  # nothing is left to do
    assert capsys.readouterr().out == ""
    assert records.file(trains.name).stat().st_mtime_ns == before
    other = Sitting(
        QUICK, sitting.records, sitting.work, overrides=(*overrides, "learning.momentum=0.5")
    )
    with pytest.raises(UserError, match="must not be mixed"):
        other.train((trains,), seed=0)


def rows_of(sitting: Sitting, run: LabRun, pictures: int) -> tuple[Config, Derived]:
    """The configuration of a row, and what follows from it."""
    config = load_config(sitting.base_file(), sitting.words(run, seed=0))
    return config, derive(config, pictures, run.processes, [run.processes])


def test_a_file_of_the_user_s_own_leaves_the_rows_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its schedule is that of one run of its own; and a warm-up of 1,000 pictures were 62 epochs.
    own = tmp_path / "own.yaml"
    own.write_text(
        "data:\n  kind: scenes\n  keep_empty: true\n"
        f"  scenes: {{train_images: 16, val_images: 4, size: 64, cache: '{tmp_path}'}}\n"
        "bn: {size: 2}\n"
        "learning:\n  warmup_iterations: 3\n  warmup_start_rate: 0.4\n  rate: 0.5\n"
        "  scaling: sqrt\n  policy: custom\n  epochs: 2\n  max_iterations: 3\n"
        "  milestones: [{epoch: 1, factor: 0.5}]\n  accumulation: 2\n"
    )
    scale, _ = settled(FULL, ["learning.base_rate=0.003"])
    sitting = Sitting(scale, tmp_path / "out", tmp_path / "work", config=own)
    for run in (*TABLE2, *TABLE3, *FIGURE4, *BN_SIZE_RUNS, *rate_runs(scale)):
        config, derived = rows_of(sitting, run, 16)
        assert derived.peak_rate == pytest.approx(run.peak_rate(scale)), run.name
        assert (config.learning.accumulation, config.bn.size) == (1, run.bn_size)
        if run.updates is None:
            one_epoch = -(-16 // run.batch)
            assert derived.warmup_iterations == (one_epoch if run.warmup else 0)
            assert derived.end_epoch == {"normal": 11, "long": 18}[run.policy]
        else:
            assert derived.end_iteration == run.updates
    assert TABLE2[1].peak_rate(scale) == pytest.approx(0.006)


@pytest.mark.parametrize(
    "word",
    [
        *("global_batch=16", "seed=1", "bn.size=4", "bn={}", "learning={}", "learning.rate=0.1"),
        *("learning.milestones.0.epoch=3", " learning.warmup_images =5", "log.every_iterations=9"),
    ],
)
def test_a_word_that_would_make_rows_other_than_their_names_say_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="belongs to the experiments' rows"):
        settled(FULL, ["data.max_size=64", word])


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much"])
def test_r_is_a_positive_number(value: str) -> None:
    with pytest.raises(UserError, match="r must be a positive number"):
        settled(FULL, [f"learning.base_rate={value}"])
    assert settled(FULL, ["a.b=1"]) == (FULL, ("a.b=1",))


def test_measurements_of_another_configuration_are_not_taken_for_these(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("data: {max_size: 64}\n")

    def digests(scale: LabScale = QUICK, *words: str) -> dict[str, str]:
        sitting = Sitting(scale, tmp_path / "out", tmp_path / "work", config=own, overrides=words)
        return {**sitting.variance_digests(0), "overhead": sitting.overhead_digest()}

    first = digests()
    assert len(set(first.values())) == 7 and digests() == first
    changed = [
        digests(QUICK, "model.fpn_channels=32"),
        digests(dataclasses.replace(QUICK, variance_pictures=48, overhead_turns=3)),
        digests(dataclasses.replace(QUICK, variance_sizes=(2, 8, 32), overhead_turns=4)),
    ]
    own.write_text("data: {max_size: 96}\n")
    for other in (*changed, digests()):
        assert not set(other.values()) & set(first.values())


def test_every_record_of_a_seed_is_of_one_kind_whatever_is_run(tmp_path: Path) -> None:
    # Table 3 under other words than table 2's would be held against it.
    words = ("model.backbone_weights=null",)
    sitting = Sitting(QUICK, tmp_path, tmp_path / "work", overrides=words)
    other = dataclasses.replace(sitting, overrides=(*words, "learning.momentum=0.5"))
    records = sitting.of_seed(0)
    names = {run.name: sitting.training_digest(run, 0) for run in (TABLE2[0], rate_runs(QUICK)[0])}
    names |= {"variance-cgbn-end": sitting.variance_digests(0)["variance-cgbn-end"]}
    names |= {"overhead": sitting.overhead_digest()}
    for name, digest in names.items():
        backbone = "" if name == "overhead" else "None"
        records.write(name, {"settings": digest, "backbone": backbone})
        sitting.train((), 0)
        with pytest.raises(UserError, match=rf"{name}\.json is of other settings"):
            other.train((), 0)
        records.file(name).unlink()


def test_a_backbone_of_the_user_s_own_is_known_by_its_bytes(tmp_path: Path) -> None:
    own, weights = tmp_path / "own.yaml", tmp_path / "weights.pt"
    own.write_text(f"model: {{backbone_weights: '{weights}'}}\n")
    weights.write_bytes(b"one")

    def backbone(config: Path | None, *words: str) -> str:
        sitting = Sitting(QUICK, tmp_path, tmp_path / "work", config=config, overrides=words)
        file, digest = sitting.backbone(0)
        assert file is None, "the settings name it"
        return digest

    first = backbone(own)
    assert backbone(tmp_path / "." / "own.yaml") == first, "however the file is called"
    assert backbone(None, f"model.backbone_weights={weights}") == first
    weights.write_bytes(b"two")
    assert backbone(own) != first
    assert backbone(own, "model.backbone_weights=null") == "None"


def test_a_configuration_s_bases_count_for_its_records(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("data: {max_size: 64}\n")
    own = tmp_path / "own.yaml"
    own.write_text("base: base.yaml\n")

    def digest() -> str:
        return Sitting(QUICK, tmp_path, tmp_path / "work", config=own).overhead_digest()

    before = digest()
    own.write_text("base: base.yaml  # a remark\n")
    assert digest() == before
    (tmp_path / "base.yaml").write_text("data: {max_size: 96}\n")
    assert digest() != before


def test_no_picture_is_measured_twice_and_every_size_has_two_batches(tmp_path: Path) -> None:
    def sitting(pictures: int) -> Sitting:
        words = (f"data.scenes.train_images={pictures}",)
        return Sitting(FULL, tmp_path / "out", tmp_path / "work", overrides=words)

    assert (sitting(600)._variance_pictures, sitting(600)._sizes(8)) == (512, [8, 16, 32, 64])
    assert (sitting(70)._variance_pictures, sitting(70)._sizes(None)) == (70, [1, 2, 4, 8, 16, 32])
    with pytest.raises(UserError, match=r"31 training pictures are too few .* 32 or more"):
        sitting(31)._sizes(8)


class Gathered:
    """What a sitting would train; each ends at once, as ``record`` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trainings: list[Training] = []
        self.before: Callable[[], None] = lambda: None
        monkeypatch.setattr("megdet_hvd.lab.sitting.run_side_by_side", self.run)
        monkeypatch.setattr(Training, "record", lambda training: {**ENDED, **training.known})

    def run(
        self, trainings: Sequence[Training], done: Callable[[Training], None], _: object
    ) -> None:
        for training in trainings:
            self.trainings.append(training)
            self.before()
            done(training)


ENDED: dict[str, object] = {"updates": 3, "diverged": None, "scores": []}


def test_a_record_that_another_sitting_has_made_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("model.backbone_weights=null",)
    sitting = Sitting(QUICK, tmp_path, tmp_path / "work", overrides=words)
    records, run = sitting.of_seed(0), TABLE2[1]
    gathered = Gathered(monkeypatch)
    gathered.before = lambda: records.write(run.name, {**ENDED, "updates": 4})
    sitting.train((run,), 0)
    found = records.read(run.name)
    assert found is not None and found["updates"] == 4
    assert f"{run.name} has a record by now, of another sitting" in capsys.readouterr().out


def test_the_baselines_weights_are_kept_and_measured_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("model.backbone_weights=null",)
    sitting = Sitting(QUICK, tmp_path, tmp_path / "work", overrides=words)
    gathered = Gathered(monkeypatch)
    sitting.train(TABLE2[:2], 0)
    assert [training.keep for training in gathered.trainings] == [True, False]
    for run in BASELINES:
        (tmp_path / "work" / "quick-seed0" / run.name).mkdir(parents=True)
    measured: list[list[str]] = []

    def measure(self: Sitting, words: list[str], output: Path) -> None:
        measured.append(words)
        Path(words[words.index("--out") + 1]).write_text('{"slope": -1.0, "rows": []}')

    monkeypatch.setattr(Sitting, "_run", measure)
    sitting.variance(0)
    assert len(measured) == 6 and all("data.aspect_grouping=0" in words for words in measured)
    assert ["--weights" in words for words in measured] == [False, True] * 3
    sizes = [words[words.index("--bn-size") :][:2] for words in measured if "--bn-size" in words]
    assert sizes == [["--bn-size", "8"]] * 2
    # The same folders are no other sitting's.
    other = dataclasses.replace(
        sitting, records=tmp_path / "other", overrides=(*words, "learning.momentum=0.5")
    )
    with pytest.raises(UserError, match="is a training of other settings"):
        other.variance(0)


def test_seeds_are_numbers(tmp_path: Path) -> None:
    sitting = Sitting(QUICK, tmp_path, tmp_path / "work")
    for name in ("quick-seed10", "quick-seed9", "quick-seedx", "full-seed1", "quick-seed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "overhead.json").write_text("{}")
    assert sitting.seeds_with_record("overhead") == [9, 10]


def test_two_sittings_do_not_work_in_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table2", "--quick", "--out", str(tmp_path)]
    (tmp_path / "work").mkdir()
    lock = take(tmp_path / "work", say=print)
    try:
        assert lab.main(words) == 2
        assert f"{tmp_path / 'work'}: " in (told := capsys.readouterr().err)
        assert "two would spoil it" in told
        assert lab.main([*words, "--report"]) == 0
    finally:
        lock.release()


def test_a_backbone_is_what_its_facts_say_or_is_refused(tmp_path: Path) -> None:
    sitting = Sitting(QUICK, tmp_path / "out", tmp_path / "work")
    place = tmp_path / "work" / "backbone-seed0-200-scenes-96px-2-epochs"
    place.mkdir(parents=True)
    weights = {"conv1.weight": torch.ones(2)}
    torch.save(weights, place / "backbone.pt")
    facts = place / "backbone.json"
    facts.write_text(json.dumps({"digest": weights_digest(weights)}))
    assert sitting.backbone(0) == (place / "backbone.pt", weights_digest(weights))
    folders = [
        Sitting(scale, tmp_path, tmp_path)._backbone_folder(0) for scale in (FULL, GRADUAL, QUICK)
    ]
    assert folders[0] == folders[1] != folders[2]  # full and gradual are taught alike
    torch.save({"conv1.weight": torch.zeros(2)}, place / "backbone.pt")
    with pytest.raises(UserError, match="is not the backbone that"):
        sitting.backbone(0)
    facts.write_text("{")
    with pytest.raises(UserError, match="says nothing of a backbone"):
        sitting.backbone(0)


def test_the_command_line_names_experiments_and_settings() -> None:
    names, overrides = lab.experiments_and_overrides(["variance", "data.max_size=64", "table2"])
    assert (names, overrides) == (("table2", "variance"), ("data.max_size=64",))
    everything = lab.experiments_and_overrides(["all"])[0]
    assert set(lab.NAMES) - set(everything) == {"tuning"}


@pytest.mark.parametrize(
    ("words", "message"), [([], "no experiment is named"), (["table9"], "table9: there is no such")]
)
def test_a_word_that_is_no_experiment_is_refused_with_those_there_are(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.main(words) == 2
    told = capsys.readouterr().err
    assert message in told and "table2, table3, figure4" in told


def test_what_one_seed_runs_is_not_run_for_a_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, set[str]]] = []

    def train(self: Sitting, runs: Iterable[LabRun], seed: int) -> None:
        asked.append((seed, {run.name for run in runs}))

    monkeypatch.setattr(Sitting, "train", train)
    judged = {run.name for run in judged_runs(QUICK)}
    words = ["large", "--quick", "--out", str(tmp_path), "--seeds"]
    assert lab.main([*words, "3", "4"]) == 0
    assert asked == [(3, judged)]  # the first that is named
    asked.clear()
    common = {"machine": "a machine", "loss": [], "initial_loss": 3.0}
    record = {**common, "updates": 8, "diverged": None, "scores": []}
    Sitting(QUICK, tmp_path, tmp_path).of_seed(3).write(min(judged), record)
    assert lab.main([*words, "4"]) == 0
    assert asked == [] and "seed 4: large is for one seed, and 3 has it" in capsys.readouterr().out
    assert "| 8 | no |" in (tmp_path / "quick-large.md").read_text(encoding="utf-8")
    Sitting(QUICK, tmp_path, tmp_path).of_seed(4).write(min(judged), {**record, "updates": 9})
    assert lab.main([*words, "4", "--report"]) == 0  # the first that has it
    assert "| 8 | no |" in (tmp_path / "quick-large.md").read_text(encoding="utf-8")
    assert lab.main([*words, "4", "3"]) == 0
    assert asked == [(3, judged)]  # broken off there, carried on there


def test_overhead_is_measured_for_one_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"machine": "a machine", "rows": [{"bn_size": 2, "frozen BN": 0.1, "plain BN": 0.2}]}
    Sitting(QUICK, tmp_path, tmp_path).of_seed(3).write("overhead", record)

    def measure(*_: object, **__: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr(Sitting, "_run", measure)
    assert lab.main(["overhead", "--quick", "--out", str(tmp_path), "--seeds", "4", "5"]) == 0
    assert "seed 4: overhead is for one seed, and 3 has it" in capsys.readouterr().out
    page = (tmp_path / "quick-overhead.md").read_text(encoding="utf-8")
    assert "| 2 | 100.0 (0.50) | 200.0 (1.00) |" in page


@pytest.mark.parametrize("seeds", [["-1"], ["0", str(2**63)]])
def test_what_is_no_seed_is_refused(
    seeds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table2", "--quick", "--report", "--out", str(tmp_path), "--seeds", *seeds]
    assert lab.main(words) == 2
    assert f"--seeds {seeds[-1]}: a seed is a whole number from 0" in capsys.readouterr().err


def test_a_seed_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    sitting = Sitting(QUICK, tmp_path, tmp_path / "work")
    common = {"machine": "a machine", "loss": [], "initial_loss": 3.0, "diverged": None}
    for run, ap in ((TABLE2[0], 0.5), (TABLE2[1], 0.4)):
        scores = [{"epoch": 11.0, "AP": ap}]
        sitting.of_seed(3).write(run.name, {**common, "updates": 8, "scores": scores})
    words = ["table2", "--quick", "--report", "--out", str(tmp_path), "--seeds", "3", "3"]
    assert lab.main(words) == 0
    page = (tmp_path / "quick-table2.md").read_text(encoding="utf-8")
    assert "| 8 | no | 40.0 | -10.0 |" in page  # no spread of one


def test_a_record_of_a_stranger_s_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sitting = Sitting(QUICK, tmp_path, tmp_path / "work")
    sitting.of_seed(0).write(TABLE2[0].name, {"machine": "\x1b[2J"})
    assert lab.main(["table2", "--quick", "--report", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{TABLE2[0].name}.json is no record of this kind ('machine': " in told


def test_records_that_can_t_be_written_are_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sitting, "train", lambda *_: pytest.fail("hours of work"))
    (tmp_path / "out").write_text("")
    words = ["table2", "--quick", "--out", str(tmp_path / "out"), "--work", str(tmp_path)]
    assert lab.main(words) == 2
    assert "the records can't be kept there" in capsys.readouterr().err


def test_tables_and_pictures_are_written_from_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = Sitting(QUICK, tmp_path, tmp_path / "work").of_seed(0)
    common = {"machine": "a machine", "loss": [[1, 3.0], [2, 2.0]], "initial_loss": 3.0}
    for run, ap in ((cgbn(8), 0.5), (cgbn(16), 0.52), (cgbn(32), None)):
        end = {"at": 17, "why": "the loss is not finite"} if ap is None else None
        scores = [] if ap is None else [{"epoch": 2.0, "AP": ap}]
        found = {**common, "updates": 40, "diverged": end, "scores": scores}
        records.write(run.name, found)
    rows = [
        {"images": n, "variance": 8.0 / n, "foreground": {"box": [0.2, 0.1 / n**0.5]}}
        for n in (1, 2, 4)
    ]
    records.write("variance-cgbn-start", {**common, "slope": -1.0, "rows": rows})
    sides = {"frozen BN": 0.010, "plain BN": 0.020, "CGBN": 0.021, "CGBN, recomputed": 0.025}
    overhead = [{"bn_size": n, "images_per_process": n // 2, **sides} for n in (2, 4)]
    records.write("overhead", {**common, "carrier": "mpi", "rows": overhead})
    words = ["all", "tuning", "--quick", "--report", "--out", str(tmp_path)]
    assert lab.main(words) == 0
    table3 = (tmp_path / "quick-table3.md").read_text(encoding="utf-8")

    def hours(k: int) -> str:
        (row,) = paper_rows("v100", (8 * k,))
        return f"{row.hours:.2f} (batch {16 * k}, {8 * k} GPUs)"

    assert f"| 8 (k = 1) | 0.04 | 1 | 40 | no | 50.0 |  | {hours(1)} |" in table3
    assert f"| 16 (k = 2) | 0.08 | 1 | 40 | no | 52.0 | +2.0 | {hours(2)} |" in table3
    assert (
        f"| 32 (k = 4) | 0.16 | 1 | 40 | **1 of 1**, at update 17 | – | – | {hours(4)} |" in table3
    )
    assert f"| 64 (k = 8) | 0.32 | 1 | – | not run | – | – | {hours(8)} |" in table3
    variance = (tmp_path / "quick-variance.md").read_text(encoding="utf-8")
    assert "| cgbn-start | 1 … 4 | -1.000 (-1.000) | -0.500 (-0.500) |" in variance
    costs = (tmp_path / "quick-overhead.md").read_text(encoding="utf-8")
    assert "| 2 | 10.0 (0.50) | 20.0 (1.00) | 21.0 (1.05) | 25.0 (1.25) |" in costs
    assert "BN sums are carried by mpi" in costs
    for name in lab.NAMES:
        page = (tmp_path / f"quick-{name}.md").read_text(encoding="utf-8")
        picture = tmp_path / f"quick-{name}.png"
        if name not in ("table3", "variance", "overhead"):
            assert NOT_RUN in page and not picture.exists(), "nothing to draw"
        else:
            assert NOT_RUN not in page and picture.stat().st_size > 1000
    assert json.loads(records.file("overhead").read_text())["format"] == 1


def test_hypotheses_are_judged_on_a_page_where_they_are_registered(tmp_path: Path) -> None:
    sitting = Sitting(GRADUAL, tmp_path, tmp_path / "work")
    common = {"machine": "a machine", "loss": [], "initial_loss": 3.0, "updates": 9, "scores": []}
    for run in rate_runs(GRADUAL):
        fine = run.rate_factor <= (4 if run.norm == "cgbn" else 2)
        end = None if fine else {"at": 7, "why": "the loss is not finite"}
        sitting.of_seed(7).write(run.name, {**common, "diverged": end})
    sitting.of_seed(2).write(TABLE2[0].name, {**common, "diverged": None})
    assert lab.main(["rates", "--gradual", "--report", "--out", str(tmp_path)]) == 0
    lines = (tmp_path / "gradual-hypotheses.md").read_text(encoding="utf-8").splitlines()
    cells = {line.split(" | ")[0]: line.split(" | ")[3:] for line in lines if line[:3] == "| H"}
    assert list(cells) == [f"| H{i}" for i in (*range(1, 10), 13)]
    answer, numbers = cells["| H6"]
    assert answer == "**seen**" and "at 8: 0.04 : 0.02; at 16: 0.08 : 0.04;" in numbers
    assert cells["| H5"][0] == "**not judged**" and cells["| H13"][0] == "**not complete**"
    assert cells["| H1"][1] == "not there yet: 11 of 12 records (of seed 0, 1, 2) |"
    assert "49 records, on a machine." in lines
    assert lab.main(["rates", "--quick", "--report", "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "quick-hypotheses.md").exists()
