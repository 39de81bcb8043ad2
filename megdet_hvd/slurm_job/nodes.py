"""Once a node, before the ranks start: data and environment copied to its own disk."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.launchers import once_a_node_words
from megdet_hvd.cluster.site import Site
from megdet_hvd.cluster.step_environ import step_environ
from megdet_hvd.errors import RunError, UserError

_BAD_INPUT = 2
"""Exit code of staging where no second try would help."""


@dataclass(frozen=True)
class Prepared:
    """What the ranks use on their node; the same path on each."""

    data_root: Path | None
    environment: Path | None
    """Folder of the unpacked environment; None: the one the job itself runs in."""


def prepare_nodes(allocation: Allocation, site: Site, environ: Mapping[str, str]) -> Prepared:
    """Copy what the site file says, where it isn't there already.

    Raises:
        UserError, RunError: a node could not; its words stand in the log.
    """
    archive = None if site.in_container else site.environment
    if archive is None and not site.in_container:
        packed = Path(environ["MEGDET_ROOT"]) / ".venv.tar"
        archive = packed if packed.is_file() else None
    if site.staging is None or not (site.data_root or archive):
        if site.data_root is not None and not site.data_root.is_dir():
            raise UserError(
                f"SITE_DATA_ROOT={site.data_root}: not a folder; an archive needs SITE_STAGING, "
                "where it is unpacked on each node"
            )
        return Prepared(site.data_root, None)
    words = [*once_a_node_words(allocation), sys.executable, "-m", "megdet_hvd.staging"]
    words += ["--to", str(site.staging)]
    if site.data_root is not None:
        words += ["--data", str(site.data_root)]
    if archive is not None:
        words += ["--environment", str(archive)]
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=step_environ(environ),
    )
    answers = []
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            answers.append(json.loads(line))
        else:
            print(line, flush=True)
    if done.returncode:
        error = UserError if done.returncode == _BAD_INPUT else RunError
        raise error("a node could not get its copy of data or environment; see above")
    return compare(answers, len(allocation.hosts))


def compare(answers: list[dict[str, str | None]], nodes: int) -> Prepared:
    """What all nodes have alike.

    Raises:
        RunError: a node did not answer, or found something else than the others.
    """
    if len(answers) != nodes:
        raise RunError(f"{len(answers)} of {nodes} nodes said where their copies are")
    told = {(answer.get("data"), answer.get("environment")) for answer in answers}
    if len(told) > 1:
        raise RunError(
            f"the nodes found different data or environments ({sorted(map(str, told))}): one was "
            "changed while it was copied? Start the job again"
        )
    data, environment = next(iter(told))
    return Prepared(Path(data) if data else None, Path(environment) if environment else None)
