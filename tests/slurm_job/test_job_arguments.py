from pathlib import Path

import pytest

from megdet_hvd.config.load import load_config, to_yaml
from megdet_hvd.errors import UserError
from megdet_hvd.slurm_job.job_arguments import needs_mpi, rank_words, read_job_arguments

TEMPLATE = ["--config", "configs/coco_256.yaml"]


@pytest.fixture(autouse=True)
def coco_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCO_ROOT", "/data/coco")


def test_a_new_run_is_named_after_its_job_so_that_a_requeue_finds_it() -> None:
    arguments = read_job_arguments([*TEMPLATE, "learning.policy=long"], "megdet_128gpu-17")
    assert arguments.folder == Path("runs/megdet_128gpu-17")
    assert rank_words(arguments) == [
        *("-m", "megdet_hvd.train", "--run", "runs/megdet_128gpu-17"),
        *("--config", "configs/coco_256.yaml", "learning.policy=long"),
    ]


def test_a_name_and_a_place_of_the_users_count() -> None:
    arguments = read_job_arguments([*TEMPLATE, "name=mine", "output=/big disk"], "megdet_128gpu-17")
    assert arguments.folder == Path("/big disk/mine")


def test_the_users_configuration_file_counts_before_the_templates() -> None:
    arguments = read_job_arguments([*TEMPLATE, "--config", "configs/coco_016.yaml"], "x-1")
    assert arguments.config.global_batch == 16
    assert rank_words(arguments)[-1] == "configs/coco_016.yaml"


def test_a_resumed_run_keeps_its_own_configuration(tmp_path: Path) -> None:
    config = load_config(Path("configs/coco_016.yaml"))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    arguments = read_job_arguments(
        [*TEMPLATE, "--resume", str(tmp_path), "checkpoint.keep=3"], "x-1"
    )
    assert (arguments.config.global_batch, arguments.config.checkpoint.keep) == (16, 3)
    assert rank_words(arguments)[2:] == ["--run", str(tmp_path), "checkpoint.keep=3"]
    chosen = [*TEMPLATE, "--resume", str(tmp_path), "--config", "configs/coco_032.yaml"]
    assert read_job_arguments(chosen, "x-1").config.global_batch == 32
    chosen = [*TEMPLATE, "--resume", str(tmp_path), "--config=configs/coco_032.yaml"]
    assert read_job_arguments(chosen, "x-1").config.global_batch == 32


def test_the_users_own_folder_counts(tmp_path: Path) -> None:
    arguments = read_job_arguments([*TEMPLATE, "--run", str(tmp_path / "mine")], "x-1")
    assert arguments.folder == tmp_path / "mine" and arguments.config.global_batch == 256
    assert rank_words(arguments)[2:4] == ["--run", str(tmp_path / "mine")]
    with pytest.raises(UserError, match="give one of them"):
        read_job_arguments([*TEMPLATE, "--run", "a", "--resume", "b"], "x-1")


def test_a_run_that_is_not_there_and_one_that_is_not_named_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run to carry on"):
        read_job_arguments([*TEMPLATE, "--resume", str(tmp_path / "no")], "x-1")
    with pytest.raises(UserError, match="needs the run's folder"):
        read_job_arguments([*TEMPLATE, "--resume"], "x-1")


def test_another_program_takes_trainings_place() -> None:
    assert rank_words(read_job_arguments([*TEMPLATE, "--placement"], "x-1")) == [
        "-m",
        "megdet_hvd.placement",
    ]
    words = rank_words(read_job_arguments([*TEMPLATE, "--preflight", "seed=3"], "x-1"))
    assert words[:2] == ["-m", "megdet_hvd.preflight"]
    assert words[-3:] == ["--config", "configs/coco_256.yaml", "seed=3"]


@pytest.mark.parametrize("given", [("--evaluators", "8"), ("--evaluators=8",)])
def test_evaluators_start_the_pipeline(given: tuple[str, ...]) -> None:
    arguments = read_job_arguments([*TEMPLATE, *given, "seed=3"], "x-1")
    assert rank_words(arguments) == [
        *("-m", "megdet_hvd.pipeline", "--run", "runs/x-1"),
        *("--config", "configs/coco_256.yaml", "seed=3", "pipeline.evaluators=8"),
    ]
    assert arguments.evaluators == arguments.config.pipeline.evaluators == 8
    preflight = rank_words(read_job_arguments([*TEMPLATE, *given, "--preflight"], "x-1"))
    assert preflight[1] == "megdet_hvd.preflight" and preflight[-1] == "pipeline.evaluators=8"


def test_without_evaluators_a_job_trains_also_where_the_run_had_some(tmp_path: Path) -> None:
    config = load_config(Path("configs/coco_016.yaml"), ["pipeline.evaluators=8"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    resumed = read_job_arguments([*TEMPLATE, "--resume", str(tmp_path)], "x-1")
    assert rank_words(resumed) == ["-m", "megdet_hvd.train", "--run", str(tmp_path)]
    assert (resumed.evaluators, resumed.without_effect) == (0, None)
    back = read_job_arguments([*TEMPLATE, "--resume", str(tmp_path), "--evaluators=2"], "x-1")
    assert rank_words(back)[1:] == [
        *("megdet_hvd.pipeline", "--run", str(tmp_path), "pipeline.evaluators=2"),
    ]
    none = read_job_arguments([*TEMPLATE, "--evaluators", "0"], "x-1")
    assert rank_words(none)[1] == "megdet_hvd.train" and none.without_effect is None


def test_a_setting_of_the_pipeline_that_a_training_job_passes_over_is_told() -> None:
    arguments = read_job_arguments([*TEMPLATE, "pipeline.evaluators=4"], "x-1")
    assert rank_words(arguments)[1] == "megdet_hvd.train"
    assert "--evaluators 4 behind the template starts" in str(arguments.without_effect)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--evaluators"], "--evaluators: a whole number ≥ 0 must follow"),
        (["--evaluators", "eight"], "--evaluators eight: a whole number"),
        (["--evaluators=-1"], "--evaluators -1: a whole number"),
        (["--evaluators", "seed=3"], "--evaluators seed=3: a whole number"),
        (["--evaluators=2", "pipeline.evaluators=3"], "contradict each other"),
    ],
)
def test_bad_evaluators(words: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read_job_arguments([*TEMPLATE, *words], "x-1")
    same = read_job_arguments([*TEMPLATE, "--evaluators=2", "pipeline.evaluators=2"], "x-1")
    assert same.evaluators == 2


def test_the_pipeline_wants_a_launcher_of_mpi_programs() -> None:
    assert "does not start; set SITE_LAUNCHER=auto" in str(needs_mpi("horovodrun", 8))
    assert [needs_mpi("horovodrun", 0), needs_mpi("srun", 8), needs_mpi("auto", 8)] == [None] * 3
