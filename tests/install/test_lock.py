"""The lock files fit versions.toml, and what they don't know is not installed."""

import re
import subprocess
from pathlib import Path

import pytest

from install import lock
from install.files import sha256
from install.lock import check_files, constraints_of, hashed, lock_file, read_lock
from install.packages import Installer
from install.pins import (
    VERSIONS_FILE,
    build_requirements,
    constraints,
    read_versions,
    run_requirements,
)
from install.problem import SetupProblem
from install.settings import Places

VERSIONS = read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))
PAIRS = [*VERSIONS.pairs]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


@pytest.mark.parametrize("torch", PAIRS)
def test_each_pairs_lock_holds_all_that_set_up_installs(torch: str) -> None:
    """Otherwise: make lock."""
    pair = VERSIONS.pair(torch)
    text = lock_file(torch).read_text(encoding="utf-8")
    locked = {
        canonical(package.name): package.requirement.partition("==")[2].partition(";")[0].strip()
        for package in read_lock(text)
    }
    wanted = {
        *run_requirements(VERSIONS, pair, site_mpi=False),
        *build_requirements(VERSIONS, pair, site_mpi=False, packaged_cuda=bool(pair.cuda_compiler)),
        f"uv=={VERSIONS.uv}",
    }
    for line in wanted:
        name, _, version = line.partition("==")
        assert locked.get(canonical(name)) == version, line
    pins = dict(line.split("==") for line in constraints(VERSIONS, pair))
    assert {n: v for n, v in locked.items() if n in pins} == {
        n: pins[n] for n in locked if n in pins
    }


@pytest.mark.parametrize("torch", PAIRS)
def test_every_package_has_hashes_and_no_address(torch: str) -> None:
    text = lock_file(torch).read_text(encoding="utf-8")
    assert "://" not in text and "@" not in text and "index" not in text
    packages = read_lock(text)
    assert len(packages) > 70
    for package in packages:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+]+( ;.*)?", package.requirement), package
        assert package.hashes, package
        assert all(re.fullmatch("[0-9a-f]{64}", one) for one in package.hashes)
    # x86_64 and aarch64, three Pythons and more
    assert all(len(p.hashes) > 20 for p in packages if p.name in ("numpy", "pillow"))


def test_what_is_installed_is_held_to_the_hashes() -> None:
    pair = VERSIONS.pair("2.14.1")
    lines = constraints_of(VERSIONS, pair, {})
    assert all("--hash=sha256:" in line for line in lines) and len(lines) > 70
    assert constraints_of(VERSIONS, pair, {"MEGDET_HASHES": "no"}) == constraints(VERSIONS, pair)
    assert constraints_of(VERSIONS, None, {}) == constraints(VERSIONS, None)
    with pytest.raises(SetupProblem, match="MEGDET_HASHES=off is neither yes nor no"):
        constraints_of(VERSIONS, pair, {"MEGDET_HASHES": "off"})


def test_one_requirement_with_its_hashes() -> None:
    (line,) = hashed(f"uv=={VERSIONS.uv}", {})
    assert line.startswith(f"uv=={VERSIONS.uv} --hash=sha256:")
    assert hashed("uv==0.0.1", {"MEGDET_HASHES": "no"}) == ["uv==0.0.1"]
    with pytest.raises(SetupProblem, match=r"uv==0\.0\.1 is in none of the lock files"):
        hashed("uv==0.0.1", {})


def test_hashes_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that uv is called with; it refuses a package without a hash then."""
    called: list[list[str]] = []

    def keep(what: str, command: list[object], *args: object, **options: object) -> str:
        called.append([str(word) for word in command])
        return ""

    monkeypatch.setattr("install.packages.run_logged", keep)
    places = Places(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path)
    installer = Installer(Path("uv"), places, {"UV_INDEX": "x"})
    pair = VERSIONS.pair("2.14.1")
    for environ in ({}, {"MEGDET_HASHES": "no"}):
        lines = constraints_of(VERSIONS, pair, environ)
        installer.install(tmp_path / "python", ["tqdm"], lines, tmp_path / "log")
    installer.install(tmp_path / "python", ["x.whl"], [], tmp_path / "log", "--no-deps")
    assert ["--require-hashes" in words for words in called] == [True, False, False]


def test_archives_that_no_lock_knows_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, strange = tmp_path / "a-1.whl", tmp_path / "b-1.whl"
    known.write_bytes(b"known")
    strange.write_bytes(b"strange")
    monkeypatch.setattr(lock, "LOCKS", tmp_path)
    (tmp_path / "torch-1.txt").write_text(f"a==1 \\\n    --hash=sha256:{sha256(known)}\n")
    check_files([known], [])
    check_files([known, strange], [sha256(strange)])
    with pytest.raises(SetupProblem, match=r"no lock file knows b-1\.whl: .*MEGDET_HASHES=no"):
        check_files([known, strange], [])


def test_the_lock_command_is_offered() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["sh", "install/setup", "nonsense"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 2 and "lock " in done.stderr
