"""Templates and sbatch options, as literal text."""

import pytest

from megdet_hvd.cluster.sbatch_options import read_options, to_words
from megdet_hvd.cluster.template import read_template, shape
from megdet_hvd.errors import UserError

TEXT = """#!/bin/bash
# 128 GPUs.
#SBATCH --job-name=megdet_128gpu
#SBATCH --nodes=16
#SBATCH --ntasks-per-node 8   # one a GPU
#SBATCH -c8 --mem=0 --exclusive
#SBATCH --signal=B:USR1@300
#SBATCH --output="a folder/%x-%j.log"

source "${MEGDET_ROOT:-$SLURM_SUBMIT_DIR}/slurm/job.sh" || exit 2
train --config configs/coco_256.yaml \\
    "$@"
"""


def test_options_and_words() -> None:
    template = read_template(TEXT)
    assert dict(template.options) == {
        "job-name": "megdet_128gpu",
        "nodes": "16",
        "ntasks-per-node": "8",
        "cpus-per-task": "8",
        "mem": "0",
        "exclusive": "",
        "signal": "B:USR1@300",
        "output": "a folder/%x-%j.log",
    }
    assert shape(template.options) == (16, 8)
    assert template.arguments(["name=a b", "learning.policy=long"]) == [
        "--config",
        "configs/coco_256.yaml",
        "name=a b",
        "learning.policy=long",
    ]


def test_every_slip_is_named_at_once() -> None:
    text = TEXT.replace("--nodes", "-Z").replace("--mem=0", "--requeue=0")
    text = text.replace('\\\n    "$@"', "") + "#SBATCH --time=1:00:00\n"
    with pytest.raises(UserError) as raised:
        read_template(text, "slurm/x.sbatch")
    assert str(raised.value).splitlines() == [
        "slurm/x.sbatch line 4: -Z=16 is no option of sbatch",
        "slurm/x.sbatch line 6: --requeue takes no value, and has '0'",
        "slurm/x.sbatch line 12: sbatch passes over #SBATCH lines behind the first command; "
        "move it up",
        'slurm/x.sbatch: what stands behind the template is lost: end the call of train with "$@"',
    ]


@pytest.mark.parametrize(
    ("words", "options", "rest"),
    [
        (
            ["-N", "2", "-t1:00", "a.sbatch", "-x"],
            {"nodes": "2", "time": "1:00"},
            ["a.sbatch", "-x"],
        ),
        (["--exclusive", "a"], {"exclusive": ""}, ["a"]),
        (["--exclusive=user"], {"exclusive": "user"}, []),
        (["-Hp", "gpu big"], {"hold": "", "partition": "gpu big"}, []),
        (["--ntasks-per-nod=4"], {"ntasks-per-node": "4"}, []),
        (["--x-site-plugin=3"], {"x-site-plugin": "3"}, []),
        (["--x-site-plugin", "t.sbatch"], {"x-site-plugin": ""}, ["t.sbatch"]),
        (["--x-site-plugin", "--hold", "t"], {"x-site-plugin": "", "hold": ""}, ["t"]),
        (["--mem-per-gpu", "4G", "t"], {"mem-per-gpu": "4G"}, ["t"]),
        (["--check", "--array", "seed=1,2", "t"], {"check": "", "array": "seed=1,2"}, ["t"]),
        (["--nodes=2", "--", "-odd name"], {"nodes": "2"}, ["-odd name"]),
    ],
)
def test_forms_of_options(words: list[str], options: dict[str, str], rest: list[str]) -> None:
    found, behind = read_options(words, "here")
    assert (found, behind) == (options, rest)
    assert read_options(to_words(found), "here") == (options, [])


OTHERS = """
acctg-freq batch bb bbf begin cluster-constraint clusters comment constraint container container-id
core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot distribution
exclude export-file extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
gpus-per-task gres gres-flags hint input kill-on-invalid-dep licenses mail-type mail-user mcs-label
mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist ntasks-per-core
ntasks-per-gpu ntasks-per-socket open-mode power prefer priority profile reservation segment
sockets-per-node switches thread-spec threads-per-core time-min tmp tres-per-job tres-per-node
tres-per-socket tres-per-task uid wait-all-nodes wckey wrap
"""


@pytest.mark.parametrize("name", OTHERS.split())
def test_sbatchs_other_options_are_passed_on(name: str) -> None:
    """None is taken for a slip in one that is looked at, or for the beginning of one."""
    for words in ([f"--{name}=a b", "t"], [f"--{name}", "a b", "t"]):
        assert read_options(words, "here") == ({name: "a b"}, ["t"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nodes": "2-4", "ntasks-per-node": "8"}, "--nodes=2-4; it must be one whole number"),
        ({"nodes": "2"}, "--ntasks-per-node is missing"),
        ({"nodes": "3", "ntasks": "16"}, "16 % 3 = 1"),
        ({"nodes": "2", "ntasks": "16", "ntasks-per-node": "4"}, "2 × --ntasks-per-node=4 = 8"),
    ],
)
def test_a_shape_that_is_not_one(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        shape(options)
    assert said in str(raised.value)


def test_shape_from_all_tasks() -> None:
    assert shape({"nodes": "2-2", "ntasks": "16"}) == (2, 8)
