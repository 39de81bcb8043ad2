"""The environment as an archive: what goes in, and a real one unpacked elsewhere."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from install.pack import MANIFEST, pack
from install.pack_contents import files_of, movable_script, packed, packed_stdlib
from install.pack_python import look_beside
from install.problem import SetupProblem
from install.settings import Places

SITE = "lib/python3.11/site-packages"


def test_what_ranks_need() -> None:
    record = (
        f'ruff-1.dist-info/RECORD,,\n../../../bin/ruff,sha256=x,9\nruff/a.py,,\n"{"r,x.py"}",,\n'
    )
    dropped = files_of(record, PurePosixPath(SITE))
    assert dropped == {
        f"{SITE}/ruff-1.dist-info/RECORD",
        "bin/ruff",
        f"{SITE}/ruff/a.py",
        f"{SITE}/r,x.py",
    }
    kept = [
        "bin/mpirun",
        "bin/python",
        "lib/libmpi.so.40",
        f"{SITE}/nvidia/cu13/lib/libcublas.so.13",
        f"{SITE}/package/include/data.txt",
        f"{SITE}/torch/__init__.py",
        f"{SITE}/torch/__pycache__/a.cpython-311.pyc",
    ]
    left = [
        "bin/activate.fish",
        "bin/ruff",
        "include/mpi.h",
        f"{SITE}/__editable__.megdet_hvd-0.1.0.pth",
        f"{SITE}/megdet_hvd-0.1.0.dist-info/RECORD",
        f"{SITE}/nvidia/cu13/include/cuda.h",
        f"{SITE}/ruff/__pycache__/a.cpython-311.pyc",
        f"{SITE}/ruff/a.py",
        f"{SITE}/torch/include/ATen/a.h",
        f"{SITE}/torch/lib/libx.a",
        "pyvenv.cfg",
    ]
    assert packed([*left, *kept], dropped) == sorted(kept)


def test_what_of_the_standard_library() -> None:
    names = ["os.py", "test/test_os.py", "json/__init__.py", "site-packages/x.py", "testing.py"]
    assert packed_stdlib(names) == ["json/__init__.py", "os.py", "testing.py"]


def test_scripts_that_name_no_python_of_ours() -> None:
    assert movable_script(b"#!/usr/bin/python3\nx\n", "/env/bin") is None
    assert movable_script(b"\x7fELF\n", "/env/bin") is None
    long = b"#!/bin/sh\n'''exec' '/a b/bin/python' \"$0\" \"$@\"\n' '''\nimport sys\n"
    moved = movable_script(long, "/a b/bin")
    assert moved is not None and moved.endswith(b"\n' '''\nimport sys\n") and b"/a b" not in moved


def test_runpath_written_over() -> None:
    old = b"..\0libpython3.11.so\0/opt/python/3.11/lib\0.."
    new = look_beside(old, "/opt/python/3.11/lib")
    assert len(new) == len(old) and b"\0$ORIGIN/../lib\0" in new and b"/opt" not in new
    assert look_beside(b"\0/py/lib\0", "/py/lib") == b"\0/py/lib\0"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A small environment of this Python, with a script and a tool in it."""
    root = tmp_path / "project"
    venv = root / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=120)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "engine_room.py").write_text(
        "import sys\ndef main(): print(sys.prefix, sys.argv[1:])\n"
    )
    (site / "ruff.py").touch()
    (site / "ruff-1.dist-info").mkdir()
    (site / "ruff-1.dist-info" / "RECORD").write_text("ruff.py,,\nruff-1.dist-info/RECORD,,\n")
    script = venv / "bin" / "horovodrun"
    script.write_text(f"#!{venv}/bin/python\nimport engine_room\nengine_room.main()\n")
    script.chmod(0o755)
    (site / "megdet_open_mpi.pth").write_text("import os, sys; os.environ.setdefault('A', 'old')\n")
    (venv / "bin" / "orted").touch()
    found = Places(root=root, venv=venv, cache=tmp_path, uv_cache=tmp_path, archives=None)
    stamp = {"state": "ready", "settings": {"torch": "2.0"}, "holds": "torch 2.0", "versions": "v"}
    found.stamp.write_text(json.dumps(stamp))
    return found


def test_unpacked_elsewhere_it_runs_from_there(places: Places, tmp_path: Path) -> None:
    pack(places, {})
    archive = places.root / ".venv.tar"
    moved = tmp_path / "the node's disk" / "env"
    with tarfile.open(archive) as tar:
        assert tar.next().name == MANIFEST  # type: ignore[union-attr]
        tar.extractall(moved, filter="fully_trusted")
    places.venv.rename(places.venv.with_name("gone"))
    done = subprocess.run(
        [moved / "bin" / "horovodrun", "-np", "a b"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{moved} ['-np', 'a b']\n", done.stderr

    program = (
        "import os, site, sys, json; maps = open('/proc/self/maps').read();"
        "print(json.dumps([os.environ.get('OPAL_PREFIX'), os.environ.get('PMIX_INSTALL_PREFIX'),"
        "os.environ.get('A'), site.ENABLE_USER_SITE, maps, json.__file__]))"
    )
    done = subprocess.run(
        [moved / "bin" / "python", "-c", program], capture_output=True, text=True, timeout=60
    )
    opal, pmix, old, user_site, maps, stdlib = json.loads(done.stdout)
    assert (opal, pmix, old, user_site) == (str(moved), str(moved), None, False)
    if not sys.base_prefix.startswith("/usr"):  # a Python of the system's stays there
        assert stdlib.startswith(str(moved)) and f"{sys.base_prefix}/" not in maps
    assert not list(moved.rglob("ruff*"))


def test_what_cannot_be_packed(places: Places, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="is no folder"):
        pack(places, {"MEGDET_PACK": str(tmp_path / "none" / "x.tar")})
    stamp = json.loads(places.stamp.read_text())
    places.stamp.write_text(json.dumps({**stamp, "settings": {"torch": "site"}}))
    with pytest.raises(SetupProblem, match="the site's own PyTorch lies outside"):
        pack(places, {})
    places.stamp.unlink()
    with pytest.raises(SetupProblem, match="no finished environment"):
        pack(places, {})
    assert not list(places.root.glob("*.tar*"))
