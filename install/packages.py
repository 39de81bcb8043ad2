"""The package installer: uv, fetched once per user, and how it is called."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from install.console import run_logged, step
from install.files import put_folder
from install.problem import SetupProblem
from install.settings import Places


def base_python() -> Path:
    """The Python under us, also where we run inside an environment."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))


def _pip_config(name: str) -> str:
    command = [str(base_python()), "-m", "pip", "config", "get", f"global.{name}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def uv_environ(environ: Mapping[str, str], places: Places) -> dict[str, str]:
    """The environment for uv: the user's own, and pip's index where uv was told of none."""
    result = {**environ, "UV_CACHE_DIR": str(places.uv_cache), "UV_PYTHON_DOWNLOADS": "never"}
    result.pop("VIRTUAL_ENV", None)
    result.setdefault("UV_HTTP_TIMEOUT", "300")
    if not any(name in environ for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")):
        index = environ.get("PIP_INDEX_URL") or _pip_config("index-url")
        if index:
            result["UV_DEFAULT_INDEX"] = index
    if "SSL_CERT_FILE" not in environ and (certificates := environ.get("PIP_CERT")):
        result["SSL_CERT_FILE"] = certificates
    return result


def pip_source(places: Places) -> list[str]:
    """Options for pip: the archives alone, where a folder of them was given."""
    if places.archives is None:
        return []
    return ["--no-index", "--find-links", str(places.archives)]


def uv_source(places: Places) -> list[str]:
    """The same for uv."""
    if places.archives is None:
        return []
    return ["--offline", "--no-index", "--find-links", str(places.archives)]


def get_uv(
    version: str, places: Places, environ: Mapping[str, str], hashed: Sequence[str] = ()
) -> Path:
    """Path of uv: MEGDET_UV, else the cached one, else fetched with the user's pip.

    ``hashed``: its requirement with hashes, which what is fetched is compared with.
    """
    if own := environ.get("MEGDET_UV"):
        found = shutil.which(own)
        if found is None:
            raise SetupProblem(f"MEGDET_UV={own} is not a program")
        return Path(found)
    place = places.cache / "tools" / f"uv-{version}"
    if (place / "bin" / "uv").is_file():
        return place / "bin" / "uv"
    python = base_python()
    places.cache.mkdir(parents=True, exist_ok=True)
    with (
        step(f"fetching the package installer uv {version}"),
        tempfile.TemporaryDirectory(dir=places.cache, prefix="uv-") as scratch,
    ):
        pip: list[str | Path] = [python, "-m", "pip"]
        if subprocess.run([*pip, "--version"], capture_output=True).returncode != 0:
            helper = Path(scratch) / "env"
            run_logged(
                "making a helper environment (Debian: apt-get install python3-venv; or name "
                "a uv of your own with MEGDET_UV=/path/to/uv)",
                [python, "-m", "venv", helper],
                places.cache / "logs" / "venv.log",
            )
            pip = [helper / "bin" / "python", "-m", "pip"]
        made = Path(scratch) / "made"
        command = [*pip, "install", "--quiet", "--no-deps", "--target", made, *pip_source(places)]
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("\n".join(hashed or [f"uv=={version}"]) + "\n", encoding="utf-8")
        command += ["--requirement", wanted]
        run_logged("fetching uv", command, places.cache / "logs" / "uv.log")
        put_folder(made, place)
    return place / "bin" / "uv"


class Installer:
    """uv with its environment."""

    def __init__(self, uv: Path, places: Places, environ: Mapping[str, str]) -> None:
        """Nothing is run yet."""
        self._uv = uv
        self._places = places
        self._environ = uv_environ(environ, places)

    def make_environment(self, folder: Path, log: Path, *, system_packages: bool) -> None:
        """An empty environment on the user's Python; replaces what is at ``folder``."""
        command: list[str | Path] = [self._uv, "venv", "--clear", "--python", base_python(), folder]
        if system_packages:
            command.append("--system-site-packages")
        run_logged("making the environment", command, log, environ=self._environ)

    def install(
        self,
        python: Path,
        requirements: Iterable[str | Path],
        constraints: Sequence[str],
        log: Path,
        *options: str,
    ) -> None:
        """Install into the environment of ``python``."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
            held.write("\n".join(constraints) + "\n")
            held.flush()
            command: list[str | Path] = [self._uv, "pip", "install", "--python", python]
            command += uv_source(self._places)
            if any("--hash=" in line for line in constraints):
                command.append("--require-hashes")
            command += ["--constraint", held.name, *options, *requirements]
            run_logged("installing packages", command, log, environ=self._environ)

    def lock(
        self,
        requirements: Iterable[str],
        constraints: Sequence[str],
        out: Path,
        python: str,
        log: Path,
    ) -> None:
        """Write ``requirements`` and what they need, with hashes, for Python ``python`` and up."""
        with (
            tempfile.NamedTemporaryFile("w", suffix=".in") as wanted,
            tempfile.NamedTemporaryFile("w", suffix=".txt") as held,
        ):
            for file, lines in ((wanted, requirements), (held, constraints)):
                file.write("\n".join(lines) + "\n")
                file.flush()
            command: list[str | Path] = [self._uv, "pip", "compile", "--universal"]
            command += ["--python-version", python, "--generate-hashes", "--no-emit-index-url"]
            command += ["--no-header", "--no-annotate", *uv_source(self._places)]
            command += ["--constraint", held.name, "--output-file", out, wanted.name]
            run_logged("locking packages", command, log, environ=self._environ)
