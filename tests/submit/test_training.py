"""What of training is checked: a resume on other processes, and pictures counted."""

import re
from pathlib import Path

import pytest

from megdet_hvd.cluster.template import read_template, shape
from megdet_hvd.config.load import load_config
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.engine import resumption
from megdet_hvd.submit import training
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.report import CheckReport


def resumed(folder: Path, words: tuple[str, ...] = (), own: str = "") -> JobRequest:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / "iteration_00000010.pt").touch()
    (folder / "config.yaml").write_text(f"global_batch: 16\ndata: {{kind: scenes}}\n{own}")
    all_words = ("--config", "x.yaml", "--resume", str(folder), *words)
    return JobRequest({}, folder / "t.sbatch", {}, words, all_words, "job")


def test_a_resume_on_half_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        resumption, "read_saved_layout", lambda path: SavedLayout(16, 8, 1, "cgbn", (8,))
    )
    report = CheckReport()
    training.check_training(report, resumed(tmp_path / "a run"), 2, 2, data_is_packed=False)
    assert report.problems == []
    assert f"run folder: {tmp_path}/a run" in report.facts
    assert "BN size kept: 8 = 2 processes × 4 images" in report.facts
    assert "global batch 16 = 4 processes × 4 images × 1 pass" in report.facts


def test_a_bn_size_that_can_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 images a process at most, 2 processes a machine: 16 can't be made. Refused by default."""
    monkeypatch.setattr(
        resumption, "read_saved_layout", lambda path: SavedLayout(16, 8, 1, "cgbn", (16,))
    )
    report = CheckReport()
    training.check_training(report, resumed(tmp_path), 2, 2, data_is_packed=False)
    (problem,) = report.problems
    assert "16" in problem and "resume.other_bn_size" in problem


def test_only_what_differs_from_the_run_is_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the job, whose ranks can't tell a first start from a requeue: 16 = 4 × 2 × 2 passes.

    Were the word taken as a request, the check would promise 4 × 4 × 1.
    """
    monkeypatch.setattr(
        resumption, "read_saved_layout", lambda path: SavedLayout(16, 8, 1, "frozen", ())
    )
    own = "model: {norm: frozen}\n"
    for word, sum_ in (
        ("learning.accumulation=1", "4 processes × 2 images × 2 passes"),
        ("learning.accumulation=4", "4 processes × 1 image × 4 passes"),
    ):
        report = CheckReport()
        training.check_training(report, resumed(tmp_path, (word,), own), 1, 4, data_is_packed=False)
        assert report.problems == []
        assert f"global batch 16 = {sum_}" in report.facts


def test_a_checkpoint_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    report = CheckReport()
    training.check_training(report, resumed(tmp_path), 1, 8, data_is_packed=False)
    assert report.problems == []
    assert "iteration_00000010.pt can't be read" in "".join(report.notes)


def test_an_unknown_option_is_a_problem_like_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = CheckReport()
    job = JobRequest({}, tmp_path / "t", {}, (), ("--rezume", "x"), "job")
    training.check_training(report, job, 1, 8, data_is_packed=False)
    (problem,) = report.problems
    assert problem.startswith("behind the template: unrecognized arguments: --rezume")
    assert capsys.readouterr() == ("", "")


def test_pictures_are_counted_over_the_borders_of_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHUNK", 7)
    (tmp_path / "a.json").write_text('{"images": [{"file_name": "a"}, {"file_name": "b"}]}')
    source = f"{{annotations: {tmp_path}/a.json, images: {tmp_path}}}"
    words = ["data.kind=coco", f"data.train=[{source}]", "data.keep_empty=true"]
    assert training.images_per_epoch(load_config(None, words)) == 2
    assert training.images_per_epoch(load_config(None, [*words, "data.keep_empty=false"])) is None


@pytest.mark.parametrize(
    ("word", "note", "problem"),
    [
        ("model.backbone_weights=IMAGENET1K_V1", "data fetch backbone --name resnet50 --weig", ""),
        ("model.backbone_weights=ResNet50_Weights.IMAGENET1K_V1", "--weights IMAGENET1K_V1", ""),
        ("model.backbone_weights=of my own.pth", "", "no such file: of my own.pth"),
        ("model.init_from=/none/x.pth", "", "model.init_from=/none/x.pth: no such file"),
    ],
)
def test_weights_of_a_new_run_are_looked_for(
    word: str, note: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    report = CheckReport()
    words = ("data.kind=scenes", "model.backbone=resnet50", f"output={tmp_path}/runs", word)
    job = JobRequest({}, tmp_path / "t", {}, (), words, "job")
    training.check_training(report, job, 1, 8, data_is_packed=False)
    assert [problem in found for found in report.problems] == [True] * bool(problem)
    assert [note in found for found in report.notes] == [True] * bool(note)
    if note:
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "resnet50-0676ba61.pth").touch()
        report = CheckReport()
        training.check_training(report, job, 1, 8, data_is_packed=False)
        assert (report.problems, report.notes) == ([], [])


def along(folder: Path, *words: str) -> JobRequest:
    own = ("data.kind=scenes", f"output={folder}/runs", *words)
    return JobRequest({}, folder / "t", {}, (), own, "job")


@pytest.mark.parametrize(
    ("nodes", "batch", "evaluators", "facts", "problem"),
    [
        (17, 256, 8, ["ranks 0-127 train, ranks 128-135 evaluate", "16 nodes × 8 proc"], ""),
        (2, 15, 1, ["2 nodes × 8 processes × 1 image, 7 on the last node"], ""),
        (
            *(16, 256, 8, ["ranks 0-119 train"]),
            "over 120 processes .*--nodes=17 before the template gives 128 trainers and 8 eval",
        ),
        (
            *(16, 256, 1, []),
            "--nodes=17 before the template and --evaluators 8 gives 128 trainers and 8 evaluat",
        ),
        (2, 16, 16, [], r"--evaluators 16 of 2 × 8 = 16 processes leave none to train"),
    ],
)
def test_the_sums_are_those_of_the_trainers(
    nodes: int, batch: int, evaluators: int, facts: list[str], problem: str, tmp_path: Path
) -> None:
    report = CheckReport()
    job = along(tmp_path, f"global_batch={batch}", "--evaluators", str(evaluators))
    training.check_training(report, job, nodes, 8, data_is_packed=False)
    told = "\n".join(report.facts)
    for fact in facts:
        assert fact in told
    assert len(report.problems) == bool(problem), report.problems
    if problem:
        assert re.search(problem, report.problems[0]), report.problems


def test_a_pipeline_where_nothing_is_to_be_evaluated_or_no_mpi_starts_it(tmp_path: Path) -> None:
    report = CheckReport()
    words = ("--evaluators=8", "global_batch=64", "data.kind=coco", "data.val=[]")
    (tmp_path / "a.json").write_text("{}")
    source = f"{{annotations: {tmp_path}/a.json, images: {tmp_path}}}"
    job = along(tmp_path, *words, f"data.train=[{source}]")
    training.check_training(report, job, 2, 8, data_is_packed=False, launcher="horovodrun")
    first, second = report.problems
    assert "the pipeline is an MPI program" in first
    assert "there is nothing to evaluate on" in second


@pytest.mark.parametrize("template", sorted(Path("slurm").glob("*gpu.sbatch")))
def test_the_head_of_a_template_names_nodes_that_evaluators_need(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COCO_ROOT", str(tmp_path))
    text = template.read_text(encoding="utf-8")
    found = re.search(rf"sbatch --nodes=(\d+) {template} (--evaluators 8)", text)
    assert found is not None
    read = read_template(text)
    nodes, tasks = shape(read.options)
    assert int(found[1]) == nodes + 1
    report = CheckReport()
    words = tuple(read.arguments([f"output={tmp_path}", *found[2].split()]))
    job = JobRequest({}, template, {}, (), words, "job")
    training.check_training(report, job, nodes + 1, tasks, data_is_packed=True)
    assert report.problems == [] and f"{nodes} {'node' if nodes == 1 else 'nodes'} × 8 p" in str(
        report.facts
    )
