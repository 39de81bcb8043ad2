"""Filling a folder with all that set-up fetches, for machines without network."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from install.console import run_logged, say, step
from install.lock import check_files, constraints_of, hashed
from install.packages import Installer, get_uv
from install.pins import (
    VERSIONS_FILE,
    TorchPair,
    Versions,
    build_requirements,
    constraints,
    read_versions,
    run_requirements,
)
from install.problem import SetupProblem
from install.settings import Places, read_settings, wants_hashes
from install.sources import get_source


def fetch_archives(places: Places, environ: Mapping[str, str]) -> None:
    """Fetch every wheel and Horovod's sources into the folder MEGDET_ARCHIVES names.

    Raises:
        SetupProblem: no folder named, or something cannot be fetched.
    """
    folder = places.archives
    if folder is None:
        raise SetupProblem("name the folder to fill: make archives MEGDET_ARCHIVES=/path/to/folder")
    online = Places(**{**places.__dict__, "archives": None})
    versions = read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))
    settings = read_settings(environ, {}, versions.default_torch)
    pair = None if settings.torch == "site" else versions.pair(settings.torch)
    site_mpi = settings.mpi == "site"
    packaged_cuda = pair is not None and bool(pair.cuda_compiler)
    wanted = {
        *run_requirements(versions, pair, site_mpi=site_mpi),
        *build_requirements(versions, pair, site_mpi=site_mpi, packaged_cuda=packaged_cuda),
        f"uv=={versions.uv}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    logs = places.cache / "logs"
    uv = get_uv(versions.uv, online, environ, hashed(f"uv=={versions.uv}", environ))
    installer = Installer(uv, online, environ)
    with tempfile.TemporaryDirectory(dir=places.cache, prefix="archives-") as scratch:
        helper = Path(scratch) / "env"
        python = helper / "bin" / "python"
        installer.make_environment(helper, logs / "archives-env.log", system_packages=False)
        helpers = build_requirements(versions, pair, site_mpi=True, packaged_cuda=False)
        helpers = [line for line in helpers if not line.startswith("torch==")]
        installer.install(python, helpers, constraints(versions, pair), logs / "archives-env.log")
        with step(f"fetching about 3 GB of archives into {folder}"):
            held = Path(scratch) / "constraints.txt"
            held.write_text("\n".join(_pins(versions, pair, environ)) + "\n", encoding="utf-8")
            command: list[str | Path] = [
                python,
                "-m",
                "pip",
                "download",
                "--dest",
                folder,
                "--constraint",
                held,
            ]
            command += ["--prefer-binary", *sorted(wanted)]
            run_logged("fetching archives", command, logs / "archives.log")
            if site_mpi:
                mpi4py = f"mpi4py=={versions.groups['run']['mpi4py']}"
                command = [python, "-m", "pip", "download", "--dest", folder, "--no-deps"]
                command += ["--no-binary", "mpi4py", "--no-build-isolation", mpi4py]
                run_logged("fetching mpi4py's sources", command, logs / "archives-mpi4py.log")
        source = get_source(versions, online, python)
        target = folder / source.name
        partial = folder / f".{source.name}.{os.getpid()}"
        partial.write_bytes(source.read_bytes())
        partial.replace(target)
    if pair is not None and wants_hashes(environ):
        with step("comparing them with the lock files"):
            check_files(
                (file for file in folder.iterdir() if file.name.endswith((".whl", ".tar.gz"))),
                also=[versions.horovod_sha256],
            )
    count = sum(1 for path in folder.iterdir() if path.is_file())
    say(f"{folder} holds {count} archives for {asdict(settings)} on this Python version")
    say(f"on the machine without network: make setup MEGDET_ARCHIVES={folder}")


def _pins(versions: Versions, pair: TorchPair | None, environ: Mapping[str, str]) -> list[str]:
    """The versions that set-up will want to find, for pip, which is given no hashes here.

    It would take packages without one for a fault; the files are compared afterwards.
    """
    return [line.partition(" --hash=")[0] for line in constraints_of(versions, pair, environ)]
