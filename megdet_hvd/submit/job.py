"""The job that a command line asks for: what sbatch is given, and its shape. Pure."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megdet_hvd.cluster.job_array import OPTION, JobArray, read_job_array, words_of_members
from megdet_hvd.cluster.sbatch_options import read_options, to_words
from megdet_hvd.cluster.site import Site
from megdet_hvd.cluster.template import Template
from megdet_hvd.errors import UserError

JOB_ID = "JOBID"
"""Stands for the number that Slurm will give."""
_PATHS = ("--config", "--resume", "--run")


@dataclass(frozen=True)
class JobRequest:
    """What is submitted."""

    options: Mapping[str, str]
    """For sbatch's command line, besides what stands in the template."""
    template: Path
    """Whole path of the batch script."""
    template_options: Mapping[str, str]
    """Its #SBATCH lines."""
    words: tuple[str, ...]
    """Behind the template: the user's, with whole paths."""
    train_words: tuple[str, ...]
    """All that the template gives to ``train``."""
    name: str
    """The job's name."""
    array: JobArray | None = None
    """What its members differ in; None: it is one job."""
    member: int | None = None
    """The member that ``train_words`` are of; None: of all."""

    @property
    def members(self) -> list["JobRequest"]:
        """One for each member of the array; the job itself, where it is none."""
        if self.array is None:
            return [self]
        return [
            replace(self, train_words=tuple(words), member=i)
            for i, words in enumerate(words_of_members(self.train_words))
        ]

    @property
    def run_name(self) -> str:
        """The run folder's, where nobody names it."""
        job = JOB_ID if self.member is None else f"{JOB_ID}_{self.member}"
        return f"{self.name.replace('/', '_')}-{job}"

    @property
    def all_options(self) -> dict[str, str]:
        """What counts: the command line before the template."""
        return {**self.template_options, **self.options}

    def sbatch(self, *more: str) -> list[str]:
        """The command."""
        return ["sbatch", *more, *to_words(self.options), str(self.template), *self.words]

    def log(self, job_id: str = JOB_ID) -> str:
        """The job's log as Slurm names it; a relative one lies in the project's folder."""
        return self.expanded(self.all_options.get("output", "slurm-%j.out"), job_id)

    def expanded(self, pattern: str, job_id: str, user: str = "%u") -> str:
        """A file's name with sbatch's patterns replaced; a backslash in it turns them off."""
        if "\\" in pattern:
            return pattern.replace("\\", "")
        known = {"x": self.name, "j": job_id, "A": job_id, "u": user, "%": "%"}

        def replaced(match: re.Match[str]) -> str:
            width, letter = match[1], match[2]
            return known.get(letter, match[0]).rjust(int(width or 0), "0")

        return re.sub(r"%(\d*)([A-Za-z%])", replaced, pattern)


def make_job(
    template: Template,
    file: Path,
    site: Site,
    given: Mapping[str, str],
    words: Sequence[str],
    environ: Mapping[str, str],
    arrays: Sequence[str] = (),
) -> JobRequest:
    """Put together what the command line, the site file and the template say.

    Where they differ, the one named first counts. ``arrays``: settings with several values.

    Raises:
        UserError: SITE_SBATCH_OPTIONS, or an array, can't be read.
    """
    site_options, rest = read_options(site.sbatch_options, "SITE_SBATCH_OPTIONS")
    if rest:
        raise UserError(f"SITE_SBATCH_OPTIONS: {rest[0]!r} is no option; it begins with --")
    named = {"partition": site.partition, "account": site.account, "qos": site.qos}
    options = {name: value for name, value in named.items() if value}
    options = {**options, **site_options, **given}
    array = read_job_array(arrays) if arrays else None
    if array is not None:
        options["array"] = array.indices
        words = [*words, *(word for text in arrays for word in (OPTION, text))]
        if "output" not in options and "%j" in template.options.get("output", ""):
            options["output"] = template.options["output"].replace("%j", "%A_%a")
    default = environ.get("SBATCH_JOB_NAME") or template.options.get("job-name") or file.name
    return JobRequest(
        options=options,
        template=file,
        template_options=template.options,
        words=tuple(words),
        train_words=tuple(template.arguments(words)),
        name=options.get("job-name", default),
        array=array,
    )


def whole_paths(words: Sequence[str], here: Path, root: Path) -> list[str]:
    """The user's words with files and folders of theirs written out: the job runs in ``root``.

    A path that is only there below ``root`` stays as it is.
    """
    found: list[str] = []
    for word in words:
        name, sign, value = word.partition("=")
        if found and found[-1] in _PATHS:
            word = _whole(word, here, root)
        elif sign and name in _PATHS:
            word = f"{name}={_whole(value, here, root)}"
        found.append(word)
    return found


def _whole(path: str, here: Path, root: Path) -> str:
    if here == root or path.startswith(("-", "/")) or not (here / path).exists():
        return path
    return os.path.normpath(here / path)


def quoted(words: Sequence[str]) -> str:
    """For a shell."""
    return shlex.join(words)
