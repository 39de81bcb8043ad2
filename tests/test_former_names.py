"""What users of former versions have goes on working: names they import, type, and find on disk.

The lists are those of commit 7e8d8c7, its README and its documents; what has come since is no
concern of theirs. A run that it began: ``tests/engine/test_former_run.py``.
"""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from megdet_hvd import errors
from megdet_hvd.checkpoint.naming import BEST, checkpoint_name, list_checkpoints
from megdet_hvd.cluster.site import site_from_variables
from megdet_hvd.config.load import config_to_dict, load_config
from megdet_hvd.engine.result import TrainResult
from megdet_hvd.engine.run_folder.folder import RunFolder

FORMER_CONFIG = Path(__file__).parent / "config" / "former_config.yaml"
"""What a run with the embedded default wrote as ``config.yaml``: every setting of then."""

OPTIONS = {
    "train": "--config --resume --run",
    "pipeline": "--config --resume --run",
    "preflight": "--config --resume --run",
    "evaluate": "--checkpoint --config --out",
    "predict": "--checkpoint --device --out --score",
    "data check": "--draw --first --images --no-decode --out --threads",
    "data fetch coco2017": "--to --parts --keep-archives --base-url",
    "data fetch backbone": "--name --weights --to --base-url",
    "submit": "--check --status --nodes --time",
    "doctor": "--config --quick",
    "placement": "--json --mpi",
    "staging": "--data --environment --remove-older --to",
    "bench bn": "--processes --step --no-busy --turns --size --images --backbone --device",
    "bench memory": "--backbone --norm --size --images --repeats --device --precision --held",
    "lab.compare": "--config --out --seeds --processes",
}
"""Of ``python -m megdet_hvd.…``."""

SITE = {
    "partition": "gpu",
    "account": "vision",
    "qos": "preemptible",
    "sbatch_options": "--cpus-per-task=6",
    "launcher": "horovodrun",
    "srun_mpi": "pmi2",
    "container": "apptainer exec --nv image.sif",
    "data_root": "/scratch/coco",
    "staging": "/local/you",
    "environment": "/scratch/you/megdet.venv.tar",
    "requeue_on_failure": "3",
    "bind": "none",
}
"""Each entry of the site file, in small letters and without ``SITE_``, with a value."""


@pytest.mark.parametrize(
    ("former", "name", "now"),
    [
        ("megdet_hvd.comm.session", "start", "megdet_hvd.job.session"),
        ("megdet_hvd.comm.watchdog", "start_watchdog", "megdet_hvd.job.watch"),
    ],
)
def test_a_former_name_works_and_names_the_new_one(former: str, name: str, now: str) -> None:
    with pytest.warns(FutureWarning, match=rf"{former}\.{name} has moved: import it from {now}"):
        found = getattr(importlib.import_module(former), name)
    assert found is getattr(importlib.import_module(now), name)
    with pytest.raises(AttributeError):
        importlib.import_module(former).no_such_name  # noqa: B018


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("megdet_hvd.load_detector", "path device norm_eps"),
        ("megdet_hvd.bn.convert_cross_gpu_bn", "module process_set"),
        ("megdet_hvd.train.train", "config comm run_folder resume machine_of_rank"),
        ("megdet_hvd.config.load.load_config", "file overrides"),
    ],
)
def test_names_that_have_not_moved_take_what_they_took(name: str, parameters: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert set(parameters.split()) <= set(inspect.signature(found).parameters)


def test_what_a_training_gives() -> None:
    fields = "run_folder iteration epoch ap ap50 best_ap checkpoint best_checkpoint evaluations"
    assert set(fields.split()) <= set(TrainResult.__dataclass_fields__)


def test_settings_are_read_with_the_values_that_they_had() -> None:
    former = yaml.safe_load(FORMER_CONFIG.read_text(encoding="utf-8"))
    assert len(list(flat(former))) > 90
    now = dict(flat(config_to_dict(load_config(FORMER_CONFIG))))
    default = dict(flat(config_to_dict(load_config(None))))
    for key, value in flat(former):
        assert now[key] == default[key] == value, key


def flat(tree: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values; tuples as lists."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += flat(value, f"{above}{key}.")
        else:
            found.append((above + key, list(value) if isinstance(value, tuple) else value))
    return found


def test_exit_codes() -> None:
    names = ("FAULT", "USER_ERROR", "RUN_ERROR", "HANG", "STOPPED")
    assert [getattr(errors, name) for name in names] == [1, 2, 3, 4, 5]


def test_entries_of_the_site_file() -> None:
    site = site_from_variables({f"SITE_{name.upper()}": value for name, value in SITE.items()})
    for name, value in SITE.items():
        read = getattr(site, name)
        assert (" ".join(read) if isinstance(read, tuple) else str(read)) == value, name


def test_files_of_a_run_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    parts = "config log metrics tensorboard checkpoints curves detections"
    assert [getattr(folder, part).name for part in parts.split()] == [
        *("config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "checkpoints"),
        *("curves.png", "detections.png"),
    ]
    for name in ("iteration_00000003.pt", "iteration_100000000.pt", "best.pt"):
        (tmp_path / name).touch()
    found = list_checkpoints(tmp_path)
    assert [path.name for path in found] == ["iteration_00000003.pt", "iteration_100000000.pt"]
    assert (checkpoint_name(3), BEST) == ("iteration_00000003.pt", "best.pt")


def test_options_of_all_programs() -> None:
    """In one process: to start one takes longer than to print its help."""
    program = f"""
import runpy, sys
for name in {list(OPTIONS)!r}:
    module, *words = name.split()
    print("PROGRAM", name)
    sys.argv = [module, *words, "--help"]
    try:
        code = runpy.run_module("megdet_hvd." + module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, (name, end.code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = {part.partition("\n")[0]: part for part in done.stdout.split("PROGRAM ")[1:]}
    for name, options in OPTIONS.items():
        there = set(re.findall(r"--[a-z-]+", said[name]))
        assert set(options.split()) <= there, f"{name}: {set(options.split()) - there}"
