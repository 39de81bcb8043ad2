"""``slurm/job.sh`` as a batch script runs it, with a program in the driver's place.

What site files, modules, signals and full disks do to it.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = '#!/bin/bash\nsource "{root}/slurm/job.sh" || exit 2\ntrain --config c.yaml "$@"\n'
DRIVER = """#!{python}
import json, os, sys
print("driver:" + json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]), flush=True)
{more}
"""
ENDLESS = """
import pathlib, time
end = time.monotonic() + 60
while time.monotonic() < end:
    places = [pathlib.Path(line) for line in os.environ["MEGDET_NOTE"].splitlines()]
    if any(list(place.glob("note.*")) for place in places):
        time.sleep(0.5)
        found = sorted({name.name for place in places for name in place.glob("note.*")})
        print("notes:" + json.dumps(found), flush=True)
        sys.exit(5)
    time.sleep(0.02)
"""


class Node:
    """A node on which Slurm runs a batch script of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / "env"
        (self.venv / "bin").mkdir(parents=True)
        (folder / "tmp").mkdir()
        tools = folder / "tools"
        tools.mkdir()
        (tools / "srun").write_text("#!/bin/sh\n")
        (tools / "srun").chmod(0o755)
        self.environ = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(folder),
            "SLURM_JOB_ID": "47",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "MEGDET_ROOT": str(ROOT),
            "MEGDET_VENV": str(self.venv),
            "TMPDIR": str(folder / "tmp"),
        }
        self.script = folder / "slurm_script"
        self.script.write_text(SCRIPT.format(root=ROOT))
        self.driver("")

    def driver(self, more: str) -> None:
        """What stands in the driver's place does once it has said what it was given."""
        file = self.venv / "bin" / "python"
        file.write_text(DRIVER.format(python=os.path.realpath("/proc/self/exe"), more=more))
        file.chmod(0o755)

    def site(self, text: str) -> None:
        file = self.folder / "site.sh"
        file.write_text(text)
        self.environ["MEGDET_SITE"] = str(file)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", str(self.script), *words],
            env=self.environ,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code and output."""
        with self.start(*words) as running:
            said, _ = running.communicate(timeout=60)
        return running.returncode, said

    def given(self, *words: str) -> tuple[list[str], str, dict[str, str], str]:
        """What the driver was given: words, folder, variables; and the output before it."""
        code, said = self.run(*words)
        assert code == 0, said
        before, mark, line = said.partition("driver:")
        assert mark, said
        found: list[Any] = json.loads(line.splitlines()[0])
        return found[0], found[1], found[2], before


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_driver_is_started_in_the_project(node: Node) -> None:
    words, folder, environ, said = node.given("name=a b", "seed=1")
    assert words == ["-m", "megdet_hvd.slurm_job", "--config", "c.yaml", "name=a b", "seed=1"]
    assert (folder, said) == (str(ROOT), "")
    assert environ["MEGDET_WORDS"].split("\x1f") == ["name=a b", "seed=1"]
    assert environ["MEGDET_SCRIPT"] == str(node.script)
    assert environ["PYTHONPATH"] == str(ROOT) and environ["PYTHONUTF8"] == "1"
    assert not list((node.folder / "tmp").iterdir()), "nothing is left behind"


def laid_out(node: Node, answer: str) -> Path:
    """A folder of megdet-init; ``answer``: what Python says of the package, as a program."""
    folder = node.folder / "my jobs"
    (folder / "slurm").mkdir(parents=True)
    shutil.copy(ROOT / "slurm" / "job.sh", folder / "slurm")
    node.environ |= {"MEGDET_ROOT": str(folder), "SLURM_SUBMIT_DIR": str(folder)}
    node.script.write_text(SCRIPT.format(root=folder))
    file = node.venv / "bin" / "python"
    asked = f"if '-c' in sys.argv[1:]:\n    {answer}\n    sys.exit()\n"
    head, _, rest = file.read_text().partition("print(")
    file.write_text(f"{head}{asked}print({rest}")
    return folder


@pytest.mark.parametrize("source", ["", "/home/you/checkout é"])
def test_a_folder_without_the_package(node: Node, source: str) -> None:
    """It is installed in the environment, or a checkout is: then ranks anywhere take that."""
    folder = laid_out(node, f"print({source!r})")
    words, where, environ, said = node.given("seed=1")
    assert words == ["-m", "megdet_hvd.slurm_job", "--config", "c.yaml", "seed=1"]
    assert (where, environ["MEGDET_ROOT"], said) == (str(folder), str(folder), "")
    assert environ.get("PYTHONPATH", "") == source and ("PYTHONPATH" in environ) == bool(source)
    node.environ["PYTHONPATH"] = "/opt/old"
    node.site("site_setup() { export PYTHONPATH=/opt/mine; }\n")
    assert node.given()[2]["PYTHONPATH"] == (f"{source}:" if source else "") + "/opt/mine"


def test_a_folder_whose_environment_lacks_the_package(node: Node) -> None:
    folder = laid_out(node, "sys.exit('ModuleNotFoundError: megdet_hvd')")
    code, said = node.run()
    assert code == 2 and "driver:" not in said
    assert "lacks megdet_hvd, or has one that is too old" in said and "ModuleNotFound" in said
    node.environ["MEGDET_VENV"] = str(node.folder / "none")
    assert f"has no Python: ln -s /path/to/environment {folder}/.venv" in node.run()[1]
    node.environ["MEGDET_ROOT"] = str(node.folder)
    assert f"error: {node.folder} has no slurm/job.sh; submit from" in node.run()[1]


SPACK = "mkdir -p /tmp && cd /tmp && :"


@pytest.mark.parametrize(
    "site",
    [
        f"{SPACK}\nexport MINE=1",
        f"site_setup() {{ {SPACK}; export MINE=1; }}",
        "CDPATH=/usr:/tmp; cd bin; export MINE=1; cd - > /dev/null; cd /",
        "set -e; false; export MINE=1",  # behind || in the template, it is not in force
        "set -x +x; set -f; set -C; set -o pipefail; IFS=:; export MINE=1",
        "shopt -s expand_aliases; alias cd=false export=false; export MINE=1 2>/dev/null; MINE=1",
        "cd() { return 1; }; wait() { return 1; }; kill() { return 1; }; export MINE=1",
        "trap 'exit 3' EXIT USR1; trap - TERM; export MINE=1",
        "exec 2>/dev/null; exec > /dev/null; export MINE=1",
        "sleep 0.1 & export MINE=1",
        "ls /nowhere; false; export MINE=1; false",
        "echo loaded the modules; export MINE=1",
        "site_setup() { false; module() { return 1; }; module load x; export MINE=1; }",
        "x=$(exit 3); (exit 4); (trap 'true' EXIT); MINE=$( (exec echo 1) )",
        "unset MEGDET_ROOT; MEGDET_ROOT=/nowhere; export MINE=1",
        "POSIXLY_CORRECT=1; export MINE=1",
        "ulimit -c 0; umask 077; export MINE=1",
    ],
)
def test_what_a_site_file_may_do(node: Node, site: str) -> None:
    """Whatever it does to its shell, the driver starts in the project, and nothing runs twice."""
    node.site(f"{site}\n")
    words, folder, environ, _ = node.given("seed=1")
    assert words[2:] == ["--config", "c.yaml", "seed=1"]
    assert folder == environ["MEGDET_ROOT"] == str(ROOT)
    assert environ["MINE"] == "1" and "MINE" in environ["MEGDET_SITE_EXPORTS"].split()
    assert not list((node.folder / "tmp").iterdir())


@pytest.mark.parametrize(
    ("site", "told"),
    [
        ("exit 0", "ends the job's script (exit code 0): exit, exec and"),
        ("set -u\necho $NOWHERE", "ends the job's script (exit code 1)"),
        ("exec /bin/true", "ends the job's script"),
        ("site_setup() { exit 0; }", "ends the job's script (exit code 0)"),
        ("trap - EXIT; exit 0", "ends the job's script (exit code 0)"),
        ("site_setup() { cd /nowhere || return; }", "it returned 1"),
        ("SITE_X='open", "can't be read; see above"),
    ],
)
def test_what_a_site_file_may_not_do(node: Node, site: str, told: str) -> None:
    """A job that never started must not be COMPLETED, nor end without a word."""
    node.site(f"{site}\n")
    code, said = node.run()
    assert code == 2, said
    assert told in said and f"{node.folder}/site.sh" in said
    assert "driver:" not in said
    assert not list((node.folder / "tmp").iterdir())


def test_a_path_that_the_site_file_takes_away_comes_back_behind_it(node: Node) -> None:
    before = node.environ["PATH"]
    for site, path in (("PATH=/opt/none", f"/opt/none:{before}"), ("unset PATH", before)):
        node.site(f"{site}\n")
        _, _, environ, said = node.given()
        assert environ["PATH"] == f"{node.venv}/bin:{path}"
        assert "has taken srun off PATH" in said


def test_a_umask_that_keeps_the_job_from_its_own_files(node: Node) -> None:
    node.site("umask 0777\n")
    assert "sets umask 0777" in node.given()[3]


def test_what_modules_and_conda_preset(node: Node) -> None:
    preset = {"PYTHONHOME": "/opt/py", "PYTHONPATH": "/opt/pollute", "PYTHONOPTIMIZE": "2"}
    preset |= {"OPAL_PREFIX": "/opt/hpcx", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    (node.venv / "bin" / "orted").touch()
    (node.venv / "bin" / "orted").chmod(0o755)
    node.environ |= preset
    _, _, environ, said = node.given()
    assert environ["PYTHONPATH"] == str(ROOT) and environ["PYTHONUTF8"] == "1"
    assert not {"PYTHONHOME", "OPAL_PREFIX", "PYTHONOPTIMIZE", "PYTHONIOENCODING"} & {*environ}
    for told in ("PYTHONHOME=/opt/py", "PYTHONPATH=/opt/pollute", "OPAL_PREFIX=/opt/hpcx"):
        assert f"job: left out: {told}" in said


def test_another_mpis_libraries(node: Node) -> None:
    """A site's Open MPI module puts them before those that mpirun and Horovod were built with."""
    folders = {name: node.folder / name for name in ("hpcx é", "cuda", "hpcx2", "env/lib")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / ("libcudart.so.12" if name == "cuda" else "libmpi.so.40")).touch()
    given = ":".join(map(str, folders.values()))
    node.environ["LD_LIBRARY_PATH"] = given
    assert node.given()[2]["LD_LIBRARY_PATH"] == given, "an environment on the site's own MPI"
    (node.venv / "bin" / "orted").touch()
    (node.venv / "bin" / "orted").chmod(0o755)
    _, _, environ, said = node.given()
    assert environ["LD_LIBRARY_PATH"] == f"{folders['cuda']}:{folders['env/lib']}"
    assert "job: left out of LD_LIBRARY_PATH, another MPI's folders" in said
    node.environ["LD_LIBRARY_PATH"] = str(folders["cuda"])
    assert "LD_LIBRARY_PATH" not in node.given()[3]


def test_a_pythonpath_that_the_site_file_asks_for(node: Node) -> None:
    node.environ["PYTHONPATH"] = "/opt/old"
    node.site("site_setup() { export PYTHONPATH=/opt/mine:$PYTHONPATH; }\n")
    _, _, environ, said = node.given()
    assert environ["PYTHONPATH"] == f"{ROOT}:/opt/mine:/opt/old"
    assert "left out" not in said
    assert "PYTHONPATH" in environ["MEGDET_SITE_EXPORTS"].split()


def told(node: Node, *signals: int, spoil: bool = False) -> tuple[int, list[str]]:
    """Exit code and the notes that are there once the script has had these signals."""
    node.driver(ENDLESS)
    with node.start() as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        environ = json.loads(line.partition("driver:")[2])[2]
        places = [Path(place) for place in environ["MEGDET_NOTE"].splitlines()]
        assert places[0].parent == node.folder / "tmp"
        assert not any(place.exists() for place in {*places} - {places[0]}), "none is made yet"
        if spoil:
            shutil.rmtree(places[0])
            places[0].touch()
        for number in signals:
            running.send_signal(number)
            time.sleep(0.2)
        rest = running.stdout.read()
    assert not any(place.exists() for place in places), "nothing is left behind"
    return running.returncode, json.loads(rest.partition("notes:")[2])


def test_the_first_reason_stands_unless_the_user_wants_the_end(node: Node) -> None:
    assert told(node, signal.SIGUSR1, signal.SIGTERM) == (5, ["note.USR1"])
    assert told(node, signal.SIGTERM, signal.SIGUSR2) == (5, ["note.TERM", "note.USR2"])


def test_a_place_for_notes_that_is_gone(node: Node) -> None:
    """Somebody has cleaned /tmp, and it can't be made again: another place has the warning."""
    assert told(node, signal.SIGUSR1, spoil=True) == (5, ["note.USR1"])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs: a full disk was not tried")
def test_a_full_disk_loses_no_warning(node: Node) -> None:
    """Of two pages and a few files: full of bytes and of files, before the start and after it."""
    place = node.folder / "tmp"
    small = ["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=12", "none", str(place)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("no mount here: a full disk was not tried")
    try:
        with (
            (place / "full").open("wb", buffering=0) as file,
            pytest.raises(OSError, match="space"),
        ):
            while True:
                file.write(b"0" * 4096)
        assert told(node, signal.SIGUSR1) == (5, ["note.USR1"])
        with pytest.raises(OSError, match="space"):
            for number in range(20):
                (place / str(number)).touch()
        node.driver("")
        _, _, environ, _ = node.given()
        assert environ["MEGDET_NOTE"].startswith("/dev/shm/"), "not even an empty file fits"
    finally:
        subprocess.run(["umount", str(place)], check=True)
