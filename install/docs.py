"""``make docs``: the pages below docs/ as a site, in an environment that holds only what builds it.

Nothing of the package is imported: docstrings are read from the sources. So it needs neither torch
nor Horovod, nor the environment that they run in.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from install.console import SIGN_OF_LIFE_S, duration, say, step
from install.files import only_one, read_json, write_json
from install.keys import fingerprint
from install.lock import DOCS_LOCK, hashed, read_lock
from install.packages import Installer, get_uv
from install.pins import VERSIONS_FILE, docs_requirements, read_versions
from install.problem import SetupProblem
from install.settings import Places, wants_hashes


def build_docs(places: Places, environ: Mapping[str, str]) -> None:
    """Write the site to docs/_build/html.

    Raises:
        SetupProblem: a page has a warning, such as a link that leads nowhere; it is printed.
    """
    python = _environment(places, environ)
    source = places.root / "docs"
    made = source / "_build"
    command: list[str | Path] = [python, "-m", "sphinx", "--quiet", "--builder", "html"]
    command += [
        "--fail-on-warning",
        "--fresh-env",
        "--doctree-dir",
        made / "doctrees",
        source,
        made / "html",
    ]
    with step("building the pages"):
        if _run_in_sight(command, places.root) != 0:
            raise SetupProblem("each warning about a page, above, is an error: mend them")
    say(f"the pages: {made / 'html' / 'index.html'}")


def _run_in_sight(command: Sequence[str | Path], folder: Path) -> int:
    """Run it with its output on the terminal, and a sign of life; returns its exit code."""
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=folder)
    try:
        while True:
            try:
                return process.wait(SIGN_OF_LIFE_S)
            except subprocess.TimeoutExpired:
                say(f"  still at it after {duration(time.monotonic() - start)}")
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()


def _environment(places: Places, environ: Mapping[str, str]) -> Path:
    """Its Python; made once per user, and anew after a change of what it holds."""
    text = VERSIONS_FILE.read_text(encoding="utf-8")
    wanted = docs_requirements(text)
    held = read_lock(DOCS_LOCK.read_text(encoding="utf-8"))
    lines = [line for package in held for line in package.lines()]
    constraints = lines if wants_hashes(environ) else [package.requirement for package in held]
    key = fingerprint([wanted, constraints, list(sys.version_info[:3])])
    folder = places.cache / "docs" / key
    stamp = folder / "megdet_hvd.json"
    python = folder / "bin" / "python"
    with only_one(places.cache / "locks" / f"docs-{key}.lock", "the pages' environment"):
        if (read_json(stamp) or {}).get("state") == "ready" and python.exists():
            return python
        uv = read_versions(text).uv
        installer = Installer(
            get_uv(uv, places, environ, hashed(f"uv=={uv}", environ)), places, environ
        )
        log = places.cache / "logs" / "docs.log"
        with step("making the environment that builds the pages"):
            installer.make_environment(folder, log, system_packages=False)
            installer.install(python, wanted, constraints, log)
            write_json(stamp, {"state": "ready"})
    return python
