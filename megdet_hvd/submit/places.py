"""Whether the things that the site file names are there: environment, container, data."""

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megdet_hvd.cluster.site import Site
from megdet_hvd.cluster.site_values import ARCHIVES
from megdet_hvd.cluster.srun_options import container_image
from megdet_hvd.job_folder import MARK, carried
from megdet_hvd.submit.commands import ask
from megdet_hvd.submit.report import CheckReport

_IMAGES = (".sif", ".simg", ".img", ".sqsh", ".squashfs")
_MANIFEST = "megdet_hvd_environment.json"
_OTHER_PYTHONS = ("PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE")
"""Variables that the job leaves out."""
_LACKS = """
import sys
lacks = [] if sys.version_info >= (3, 11) else ["version 3.11"]
for module, package in (("pydantic", "pydantic"), ("yaml", "PyYAML"), ("filelock", "filelock")):
    try:
        __import__(module)
    except Exception:
        lacks.append(package)
print(", ".join(lacks))
"""
"""What the job's driver needs of a Python; any Python 3 can run it."""
_HOLDS = """
import sys
from importlib import metadata
found, lacks = [], [] if sys.version_info >= (3, 11) else ["Python 3.11"]
for name in ("torch", "torchvision", "horovod", "mpi4py", "megdet_hvd"):
    try:
        found.append(name + " " + metadata.version(name))
    except metadata.PackageNotFoundError:
        lacks.append(name)
print(", ".join(found))
print(", ".join(lacks))
"""
"""What an environment that somebody made by hand holds, and what it lacks; imports none of it."""


def check_environment(
    report: CheckReport, root: Path, site: Site, environ: Mapping[str, str]
) -> None:
    """The environment, or the container in its place; its archive, where there is one."""
    venv = root / Path(environ.get("MEGDET_VENV") or ".venv").expanduser()
    if site.in_container:
        _container(report, site)
        _driver(report, venv, environ)
        return
    stamp = _stamp(venv)
    if stamp is None and os.access(venv / "bin" / "python", os.X_OK):
        stamp = _made_by_hand(report, root, venv, environ)
        if stamp is None:
            return
    if stamp is None or stamp.get("state") != "ready":
        report.problem(f"{venv} is no finished environment: {_remedy(root, venv)}")
        return
    report.facts.append(f"environment: {venv} ({stamp.get('holds')})")
    archive = site.environment or root / ".venv.tar"
    if site.staging is None:
        if site.environment is not None:
            report.notes.append("SITE_ENVIRONMENT is not used, as SITE_STAGING is empty")
        return
    if not archive.is_file():
        if site.environment is not None:
            report.problem(
                f"SITE_ENVIRONMENT={archive}: no such file: make pack MEGDET_PACK={archive}"
            )
        else:
            how = "`make pack` lets them do so from " if _can_set_up(root) else "and not from "
            report.notes.append(
                f"ranks import from the shared file system; {how}{site.staging} on each node"
            )
        return
    manifest = _manifest(archive)
    if manifest is None:
        report.problem(f"{archive} was not made by `make pack`, or is damaged: make pack")
    elif any(manifest.get(key) != stamp.get(key) for key in ("versions", "settings", "wheel")):
        report.problem(
            f"{archive} is older than the environment (it holds {manifest.get('holds')}): make pack"
        )
    else:
        report.facts.append(f"staged on each node: environment {archive} to {site.staging}")


def check_script(report: CheckReport, root: Path) -> None:
    """Whether slurm/job.sh is this package's own: the two talk to each other."""
    own = carried() / MARK
    if own.is_file() and (root / MARK).read_bytes() != own.read_bytes():
        report.notes.append(
            f"{root / MARK} differs from what this megdet_hvd has: edited, or laid out by another "
            f"version; its own is {own}"
        )


def _can_set_up(root: Path) -> bool:
    """Whether ``make setup`` can be said: only a checkout, or an unpacked sdist, has it."""
    return (root / "install" / "setup").is_file()


def _remedy(root: Path, venv: Path) -> str:
    if _can_set_up(root):
        return "make setup, or, where login nodes may not, sbatch slurm/environment.sbatch"
    return f"ln -s /path/to/environment {venv}, or export MEGDET_VENV=/path/to/environment"


def _made_by_hand(
    report: CheckReport, root: Path, venv: Path, environ: Mapping[str, str]
) -> dict[str, Any] | None:
    """The same of an environment that ``make setup`` did not make; None: a problem is named."""
    own = {name: value for name, value in environ.items() if name not in _OTHER_PYTHONS}
    if (root / "megdet_hvd" / "__init__.py").is_file():
        own["PYTHONPATH"] = str(root)  # as the job sets it
    answer = ask([str(venv / "bin" / "python"), "-c", _HOLDS], environ=own, cwd=root)
    holds, _, lacks = answer.out.rstrip("\n").partition("\n")
    missing = [name for name in lacks.split(", ") if name]
    if "PYTHONPATH" in own and "megdet_hvd" in missing:
        missing.remove("megdet_hvd")
    if answer.code != 0:
        report.problem(f"{venv}/bin/python does not run: {answer.text}")
    elif missing:
        report.problem(f"{venv} lacks {', '.join(missing)}: install it, or {_remedy(root, venv)}")
    else:
        return {"state": "ready", "holds": f"{holds}; not made by make setup"}
    return None


def _container(report: CheckReport, site: Site) -> None:
    if not site.container:
        image = container_image(site.srun_options)
        if image is not None and image.startswith("/") and not Path(image).exists():
            report.problem(f"SITE_SRUN_OPTIONS: --container-image={image}: no such file")
        report.facts.append("environment: the container of SITE_SRUN_OPTIONS")
        return
    program, *more = site.container
    if shutil.which(program) is None:
        report.notes.append(
            f"SITE_CONTAINER: {program} is not on PATH here; if the nodes find it only after "
            "module load, that belongs into site_setup"
        )
    for word in more:
        if word.endswith(_IMAGES) and "://" not in word and not Path(word).is_file():
            report.problem(f"SITE_CONTAINER: {word}: no such file")
    report.facts.append(f"environment: the container of {' '.join(site.container)}")


def _driver(report: CheckReport, venv: Path, environ: Mapping[str, str]) -> None:
    """The Python beside the container: what starts the ranks and requeues the job runs on it."""
    own = venv / "bin" / "python"
    python = str(own) if os.access(own, os.X_OK) else shutil.which("python3")
    remedy = (
        "the job is driven by a Python of the host, not the container's, so: make setup, or "
        f"MEGDET_VENV=FOLDER of an environment that has them (now: {venv})"
    )
    if python is None:
        report.problem(f"SITE_CONTAINER: python3 is not on PATH; {remedy}")
        return
    answer = ask([python, "-c", _LACKS], environ=environ)
    if answer.code != 0:
        report.problem(f"SITE_CONTAINER: {python} does not run: {answer.text}; {remedy}")
    elif answer.out.strip():
        report.problem(f"SITE_CONTAINER: {python} lacks {answer.out.strip()}; {remedy}")
    else:
        report.facts.append(f"the job is driven by: {python}")


def check_data_root(report: CheckReport, site: Site) -> None:
    """SITE_DATA_ROOT, and what becomes of it."""
    root = site.data_root
    if root is None:
        return
    if root.is_file() and root.name.endswith(ARCHIVES):
        if site.staging is None:
            report.problem(
                f"SITE_DATA_ROOT={root}: an archive needs SITE_STAGING, a folder on each node's "
                "own disk where it is unpacked; or give a folder"
            )
    elif not root.is_dir():
        what = "no such folder" if not root.exists() else "neither a folder nor a .tar or .tar.gz"
        report.problem(f"SITE_DATA_ROOT={root}: {what}")
    if site.staging is not None:
        report.facts.append(f"staged on each node: data {root} to {site.staging}")


def _stamp(venv: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((venv / "megdet_hvd.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _manifest(archive: Path) -> dict[str, Any] | None:
    """The first member of an archive of ours."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.next()
            file = None if member is None or member.name != _MANIFEST else tar.extractfile(member)
            value = None if file is None else json.load(file)
    except (OSError, tarfile.TarError, ValueError):
        return None
    return value if isinstance(value, dict) else None
