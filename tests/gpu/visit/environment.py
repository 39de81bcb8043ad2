"""An environment on the visited machine: the carried wheels on top of its own packages.

Nothing of the machine is changed. The Python that runs this has torch, and may be an environment
itself; so the new one does not take the system's packages but those of that Python, by a ``.pth``
file, which its own ``.pth`` files are read through.
"""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from install.files import own_folder, read_json, write_json
from install.problem import SetupProblem
from tests.gpu.visit.carried import WHEELS, Manifest

READY = "ready.json"


@dataclass(frozen=True)
class Environment:
    """The one that was made."""

    folder: Path
    tools: Path
    """Programs that the machine may lack; looked at last."""

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """For processes that run in it."""
        own = str(self.folder / "bin")
        path = os.pathsep.join([own, environ.get("PATH", ""), str(self.tools)])
        return {**environ, "PATH": path, "VIRTUAL_ENV": str(self.folder)}


def make_environment(carried: Path, manifest: Manifest, work: Path) -> Environment:
    """Make it in ``work``, or take the one that an earlier visit made there of the same wheels.

    Raises:
        SetupProblem: the wheels are for another Python, or pip's reason.
    """
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest.python != running:
        raise SetupProblem(
            f"{carried} has wheels for Python {manifest.python}, and {sys.executable} is {running}:"
            f" start the visit with that one, or pack with --python {running}"
        )
    work.parent.mkdir(parents=True, exist_ok=True)
    own_folder(work)
    made = Environment(work / "env", carried / "bin")
    wanted = {"files": dict(manifest.files), "beneath": sys.prefix}
    if read_json(made.folder / READY) == wanted:
        return made
    shutil.rmtree(made.folder, ignore_errors=True)
    venv.EnvBuilder(symlinks=True, with_pip=False).create(made.folder)
    lay_beneath(made.folder)
    wheels = sorted((carried / WHEELS).glob("*.whl"))
    command: list[str | Path] = [
        made.python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    command += ["--no-compile", "--ignore-installed", "--no-warn-script-location", *wheels]
    done = subprocess.run(command, capture_output=True, text=True) if wheels else None
    if done is not None and done.returncode:
        raise SetupProblem(f"the carried wheels can't be installed:\n{done.stderr.strip()[-2000:]}")
    write_json(made.folder / READY, wanted)
    return made


def lay_beneath(folder: Path) -> None:
    """Let the environment find what this Python finds, after its own packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / "lib" / version / "site-packages"
    paths = [sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")]
    paths += [path for path in site.getsitepackages() if path not in paths]
    lines = [f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(paths)]
    (own / "beneath.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
