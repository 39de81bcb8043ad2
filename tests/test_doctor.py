"""The doctor's judgement on made-up machines, and one look at this one."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from megdet_hvd.cluster.wheels import (
    architectures,
    capability_served,
    driver_problem,
    kernel_architectures,
)
from megdet_hvd.doctor import probes
from megdet_hvd.doctor.facts import DataPath, DoctorFacts, Gpu, ProbeAnswer
from megdet_hvd.doctor.gather import folder_problem, look_at_config, parse_gpus, path_problem
from megdet_hvd.doctor.verdict import Finding, can_run, fitting_torchvision, judge, report

VERSIONS = {
    "torch": "2.14.1",
    "torchvision": "0.29.1",
    "horovod": "0.28.1",
    "mpi4py": "4.1.2",
    "numpy": "2.4.6",
    "pycocotools": "2.0.11",
    "pydantic": "2.14.4",
    "pyyaml": "6.0.4",
    "pillow": "13.0.0",
    "matplotlib": "3.11.2",
    "tensorboard": "2.21.0",
    "faster-coco-eval": "1.8.0",
    "msgspec": "0.22.0",
    "simplejpeg": "1.9.0",
    "tqdm": "4.70.1",
    "psutil": "7.2.2",
}

FLAGS = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"

LIBMPI = "/e/.venv/lib/libmpi.so.40"

H100 = Gpu("NVIDIA H100", "580.95.05", "9.0", 81559)

HEALTHY = DoctorFacts(
    python=(3, 11, 7),
    executable="/e/.venv/bin/python",
    package="0.1.0",
    versions=VERSIONS,
    torch=ProbeAnswer(
        {
            "version": "2.14.1+cu130",
            "cuda": "13.0",
            "architectures": FLAGS,
            "nccl": "2.30.7",
            "available": True,
        }
    ),
    torchvision=ProbeAnswer({"version": "0.29.1+cu130", "kept": 1}),
    horovod=ProbeAnswer(
        {"version": "0.28.1", "mpi": True, "gloo": True, "nccl": True, "libmpi": LIBMPI}
    ),
    mpi4py=ProbeAnswer({"version": "4.1.2", "library": "Open MPI v4.1.8", "libmpi": LIBMPI}),
    launch=ProbeAnswer({"processes": 2, "seconds": 6.5}),
    mpirun="/e/.venv/bin/mpirun",
    mpirun_version="mpirun (Open MPI) 4.1.8",
    horovodrun="/e/.venv/bin/horovodrun",
    on_path=True,
    gpus=(H100, H100),
    gpu_tool_error=None,
    kernels="75,80,86,90,100,120",
    cores=16,
    memory_gib=128.0,
    cache="/home/u/.cache/megdet_hvd",
    cache_problem=None,
    config_problem=None,
    config_name="the embedded default",
    data=(),
)


def faults(facts: DoctorFacts) -> list[Finding]:
    return [finding for finding in judge(facts) if finding.state == "NO"]


def only_fault(facts: DoctorFacts) -> Finding:
    found = faults(facts)
    assert len(found) == 1, found
    assert not can_run(judge(facts))
    return found[0]


def without(name: str) -> dict[str, str]:
    return {key: version for key, version in VERSIONS.items() if key != name}


def test_a_healthy_machine_is_one_screen_without_a_fix() -> None:
    findings = judge(HEALTHY)
    lines = report(findings)
    assert can_run(findings) and lines[-1] == "Training can run."
    assert {finding.state for finding in findings} == {"ok"}
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert not [line for line in lines if "→" in line]
    assert any("2 × NVIDIA H100" in line and "9.0" in line for line in lines)


def test_a_machine_without_gpus_can_train() -> None:
    facts = dataclasses.replace(HEALTHY, gpus=())
    assert can_run(judge(facts))
    assert any("none: training runs on the CPU" in line for line in report(judge(facts)))


def test_a_driver_too_old_for_the_wheels() -> None:
    old = dataclasses.replace(H100, driver="535.104.05")
    fault = only_fault(dataclasses.replace(HEALTHY, gpus=(old,)))
    assert "driver 535.104.05 is older than CUDA 13.0 asks for (≥ 580.65)" in fault.text
    assert fault.fix.startswith("make setup MEGDET_TORCH=2.9.1")


def test_a_card_that_the_wheels_leave_out() -> None:
    v100 = Gpu("Tesla V100", "580.95.05", "7.0", 16384)
    fault = only_fault(dataclasses.replace(HEALTHY, gpus=(v100,)))
    assert "this torch was not built for it" in fault.text and "2.9.1" in fault.fix


def test_a_card_that_horovods_kernels_leave_out() -> None:
    t4 = Gpu("Tesla T4", "580.95.05", "7.5", 16384)
    fault = only_fault(dataclasses.replace(HEALTHY, gpus=(t4,), kernels="80,90"))
    assert fault.fix == "make setup MEGDET_CUDA_ARCHS=80,90,75"


def test_horovod_missing() -> None:
    facts = dataclasses.replace(
        HEALTHY,
        versions=without("horovod"),
        horovod=ProbeAnswer(error="ModuleNotFoundError: No module named 'horovod'"),
        launch=None,
    )
    fault = only_fault(facts)
    assert (fault.subject, fault.text, fault.fix) == ("Horovod", "not installed", "make setup")
    assert report([fault])[-1] == "Training cannot run: 1 thing to mend (→)."
    assert report([fault], installed=True)[-1].endswith("(→). make setup: in a checkout.")


def test_horovod_built_for_another_torch() -> None:
    error = "ImportError: mpi_lib_v2.so: undefined symbol: _ZN3c106SymInt8to"
    facts = dataclasses.replace(HEALTHY, horovod=ProbeAnswer(error=error), launch=None)
    fault = only_fault(facts)
    assert "undefined symbol" in fault.text
    assert "wheels && make setup" in fault.fix


def test_torchvision_of_another_torch() -> None:
    versions = {**VERSIONS, "torchvision": "0.26.0"}
    fault = only_fault(dataclasses.replace(HEALTHY, versions=versions))
    assert fault.text == ("0.26.0 does not fit torch 2.14.1, which goes with torchvision 0.29")


def test_torchvision_of_another_kind() -> None:
    error = "RuntimeError: operator torchvision::nms does not exist"
    fault = only_fault(dataclasses.replace(HEALTHY, torchvision=ProbeAnswer(error=error)))
    assert "operator torchvision::nms does not exist" in fault.text


def test_a_horovod_without_mpi_needs_none() -> None:
    over_gloo = ProbeAnswer({"version": "0.28.1", "mpi": False, "gloo": True, "nccl": True})
    none = ProbeAnswer(error="RuntimeError: cannot load MPI library")
    facts = dataclasses.replace(HEALTHY, horovod=over_gloo, mpi4py=none)
    for without_it in (facts, dataclasses.replace(facts, versions=without("mpi4py"))):
        findings = judge(without_it)
        assert can_run(findings), report(findings)
        (note,) = [finding for finding in findings if finding.subject == "MPI"]
        assert note.state == "note" and note.text.endswith("runs over Gloo, without it")
    fault = only_fault(dataclasses.replace(HEALTHY, mpi4py=none))
    assert fault.subject == "MPI" and "finds no MPI" in fault.text


def test_two_mpis_in_one_process() -> None:
    other = ProbeAnswer({"library": "Open MPI v4.1.4", "libmpi": "/usr/lib/libmpi.so.40"})
    facts = dataclasses.replace(HEALTHY, mpi4py=other, mpirun_version="mpirun (Open MPI) 4.1.4")
    fault = only_fault(facts)
    assert "/usr/lib/libmpi.so.40" in fault.text and LIBMPI in fault.text


def test_an_mpirun_of_another_mpi() -> None:
    facts = dataclasses.replace(HEALTHY, mpirun_version="mpirun (Open MPI) 4.0.3")
    fault = only_fault(facts)
    assert "is of MPI 4.0.3, the library 4.1.8" in fault.text
    assert "activate" in fault.fix


def test_open_mpi_5_is_a_note() -> None:
    facts = dataclasses.replace(
        HEALTHY,
        mpirun_version="mpirun (Open MPI) 5.0.3",
        mpi4py=ProbeAnswer({"library": "Open MPI v5.0.3", "libmpi": LIBMPI}),
    )
    notes = [finding for finding in judge(facts) if finding.state == "note"]
    assert len(notes) == 1 and "Open MPI 5" in notes[0].text
    assert can_run(judge(facts))


def test_a_launch_that_fails_stops() -> None:
    fault = only_fault(
        dataclasses.replace(HEALTHY, launch=ProbeAnswer(error="no answer within 120 s"))
    )
    assert "no answer within 120 s" in fault.text


def test_data_that_is_not_there() -> None:
    there = DataPath("data.train.0.images", "/d/train", "folder", None)
    gone = DataPath("data.train.0.annotations", "/d/train.json", "file", "not there")
    fault = only_fault(dataclasses.replace(HEALTHY, data=(there, gone)))
    assert fault.text == "data.train.0.annotations: /d/train.json: not there"
    assert "data.train.0.annotations=…" in fault.fix


@pytest.mark.parametrize(
    ("cores", "state", "told"),
    [
        (16, "ok", "8 for each GPU's process: 3 kept for its own threads, 5 left to load"),
        (8, "ok", "4 for each .*: 3 kept .*, 1 left"),
        (7, "note", "3 for each .*: 3 kept .*, 0 left .*: training loads them itself"),
        (1, "note", "0 for each .*: 0 kept .*, 0 left"),
    ],
)
def test_cores_that_a_gpus_process_keeps_for_itself(cores: int, state: str, told: str) -> None:
    (found,) = [f for f in judge(dataclasses.replace(HEALTHY, cores=cores)) if f.subject == "cores"]
    assert found.state == state and re.match(told, found.text), found
    assert ("--cpus-per-task" in found.fix) == (state == "note")
    without = dataclasses.replace(HEALTHY, gpus=(), cores=cores)
    assert all(f.subject != "cores" for f in judge(without))


def test_nothing_installed_at_all_still_fits_on_the_screen() -> None:
    gone = ProbeAnswer(error="ModuleNotFoundError: No module named 'it'")
    facts = dataclasses.replace(
        HEALTHY,
        versions={},
        torch=gone,
        torchvision=gone,
        horovod=gone,
        mpi4py=gone,
        launch=None,
        mpirun="",
        mpirun_version="",
        horovodrun="",
        on_path=False,
        gpus=tuple(dataclasses.replace(H100, name=f"GPU {n}") for n in range(8)),
        cache_problem="cannot write in /: Permission denied",
        config_problem="cannot be read: No module named 'pydantic'",
        data=(),
    )
    findings = judge(facts)
    lines = report(findings)
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert not can_run(findings)
    missing = {finding.subject for finding in findings if finding.state == "NO"}
    assert {"torch", "torchvision", "Horovod", "MPI", "packages", "cache", "settings"} <= missing
    assert all(finding.fix for finding in findings if finding.state != "ok")


def test_a_crowd_of_data_paths_is_cut_but_the_verdict_stays() -> None:
    data = tuple(DataPath(f"data.train.{n}.images", f"/d/{n}", "folder", None) for n in range(90))
    lines = report(judge(dataclasses.replace(HEALTHY, data=data)))
    assert len(lines) == 40 and lines[-1] == "Training can run."
    gone = (*data, DataPath("data.val.0.images", "/d/val", "folder", "not there"))
    lines = report(judge(dataclasses.replace(HEALTHY, data=gone)))
    assert len(lines) <= 40
    assert any("/d/val: not there" in line for line in lines)


@pytest.mark.parametrize(
    ("driver", "cuda", "fine"),
    [
        ("580.65.06", "13.0", True),
        ("579.99", "13.0", False),
        ("525.60.13", "12.8", True),
        ("470.82", "12.8", False),
        ("", "13.0", True),
        ("580.65", "", True),
    ],
)
def test_drivers(driver: str, cuda: str, fine: bool) -> None:
    assert (driver_problem(driver, cuda) is None) == fine


@pytest.mark.parametrize(
    ("capability", "fine"),
    [
        ("7.0", False),  # older than the oldest
        ("7.5", True),
        ("8.9", True),  # machine code of 8.6 runs on 8.9
        ("8.7", True),
        ("9.0", True),
        ("10.3", True),
        ("11.0", False),  # no code of that major version, and no PTX
    ],
)
def test_capabilities(capability: str, fine: bool) -> None:
    assert capability_served(capability, architectures(FLAGS)) == fine


def test_ptx_serves_what_is_newer() -> None:
    built = kernel_architectures("90, 80")
    assert built == (("sm", 80), ("sm", 90), ("compute", 90))
    assert capability_served("12.0", built) and not capability_served("7.5", built)
    assert kernel_architectures("") == ()


@pytest.mark.parametrize(
    ("torch", "vision"),
    [("2.14.1", "0.29"), ("2.11.0+cu130", "0.26"), ("2.9.1", "0.24"), ("2.12.1", "0.27"), ("", "")],
)
def test_pairs(torch: str, vision: str) -> None:
    assert fitting_torchvision(torch) == vision


def test_gpus_from_the_drivers_tool() -> None:
    text = "NVIDIA H100 80GB HBM3, 580.95.05, 9.0, 81559\nTesla K80, 450.1, [N/A], 11441\n\n"
    assert parse_gpus(text) == (
        Gpu("NVIDIA H100 80GB HBM3", "580.95.05", "9.0", 81559),
        Gpu("Tesla K80", "450.1", "", 11441),
    )


def test_folders_and_files(tmp_path: Path) -> None:
    assert folder_problem(tmp_path / "new" / "deep") is None
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "file"
    file.touch()
    assert "is not a folder" in str(folder_problem(file / "below"))
    assert path_problem(file, "file") is None
    assert path_problem(file, "folder") == "not a folder"
    assert path_problem(tmp_path, "file") == "not a file"
    assert path_problem(tmp_path / "gone", "file") == "not there"


def test_a_configs_paths_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    (tmp_path / "train").mkdir()
    config = tmp_path / "my config.yaml"
    config.write_text(
        "data:\n  kind: coco\n"
        f"  train:\n    - {{annotations: {tmp_path}/train.json, images: {tmp_path}/train}}\n"
        "  val:\n    - {annotations: '${NO_SUCH_VARIABLE}/val.json', images: /no/such}\n"
    )
    name, problem, data = look_at_config(config, [])
    assert (name, problem) == (str(config), None)
    problems = {entry.key: entry.problem for entry in data}
    assert problems["data.train.0.annotations"] == "not there"
    assert problems["data.train.0.images"] is None
    assert "NO_SUCH_VARIABLE is not set" in str(problems["data.val.0.annotations"])
    _, problem, _ = look_at_config(None, ["gobal_batch=8"])
    assert problem is not None and "global_batch" in problem


def test_a_probe_survives_what_it_asks() -> None:
    assert probes.ask("answer = {'x': 1}").values == {"x": 1}
    assert probes.ask("import no_such_module").error == (
        "ModuleNotFoundError: No module named 'no_such_module'"
    )
    crash = probes.ask(f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    assert crash.error == "ended by SIGSEGV while loading"
    assert not crash.works
    hang = probes.ask("import time; time.sleep(60)", time_limit_s=1)
    assert hang.error == "no answer within 1 s"


def test_it_answers_without_any_package(tmp_path: Path) -> None:
    """A bare Python: every import fails, and the screen says what to do."""
    root = str(Path(__file__).resolve().parent.parent)
    code = (
        f"import sys; sys.path.insert(0, {root!r})\n"
        "from megdet_hvd.doctor.__main__ import main; sys.exit(main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "make setup" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Training cannot run:")


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("MEGDET_SUM 2 2\n", (2, 2)),
        ("[1,0]<stdout>:MEGDET_SUM 2 2\n", (2, 2)),
        ("[1,0]<stdout>:MEGDET_SUM [1,0]<stdout>:2 2\n", (2, 2)),
        ("a warning\n[1,0]<stdout>:MEGDET_SUM 1 2[1,0]<stdout>:\n", (1, 2)),
        ("MEGDET_SUM 2", None),
        ("no sum\n", None),
    ],
)
def test_the_sum_is_read_under_mpiruns_tags(output: str, told: tuple[int, int] | None) -> None:
    assert probes.sum_told(output) == told


@pytest.mark.launch
def test_this_machine(tmp_path: Path) -> None:
    """The environment that runs these tests can train, and the doctor says so."""
    done = subprocess.run(
        [sys.executable, "-m", "megdet_hvd.doctor"],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=Path(__file__).resolve().parent.parent,
        env={**os.environ, "MEGDET_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[-1] == "Training can run."
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert any("2 processes started by horovodrun added up" in line for line in lines)
    assert not (tmp_path / "cache").exists()
