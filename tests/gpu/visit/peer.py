"""Sums between GPUs without Horovod: ranks as streams, two processes, a training of two."""

import json
import subprocess
import sys
from collections.abc import Iterator

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.pytests import ROOT, counts
from tests.gpu.visit.ranks import all_equal, run_case
from tests.gpu.visit.record import Value

TESTS = "tests/gpu/test_peer_cuda.py"
STREAMS_S = 40
"""Then the rest has its turn."""


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """µs a sum; bits against the host's sum; equal weights of two ranks."""
    if setting.device == "cuda":
        words = [sys.executable, "-m", "tests.gpu.peer_sums"]
        log = setting.folder / "streams.txt"
        with log.open("wb") as output:
            try:
                done = subprocess.run(
                    words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=STREAMS_S
                )
                yield "streams, exit code", done.returncode
            except subprocess.TimeoutExpired:
                yield "streams, exit code", f"none in {STREAMS_S} s"
        for line in log.read_text("utf-8", "replace").splitlines():
            print(line, flush=True)
            yield from of_streams(line)
    yield from counts(setting, [TESTS, "-k", "two_processes"])
    if setting.device == "cuda":
        ended = run_case(setting, "steps", 2, "--carrier", "peer", limit_s=75)
        yield "training, exit code", ended.code
        yield "training, weights equal to the bit", all_equal(ended.ranks, "all")
        if "sums_ms" in ended.ranks[0]:
            yield "training, the host's part of a step's sums, ms", ended.ranks[0]["sums_ms"]
            yield "training, step, ms", ended.ranks[0]["step_ms"]


def of_streams(line: str) -> Iterator[tuple[str, Value]]:
    """One number of ranks."""
    if not line.startswith("{"):
        return
    found = json.loads(line)
    ranks = f"{found['ranks']} ranks as streams"
    yield f"{ranks}, wrong sums", found["wrong"]
    yield f"{ranks}, lost sums", len(found["lost"])
    yield f"{ranks}, in a graph, wrong sums", found["graph_wrong"]
    yield f"{ranks}, in a graph, lost sums", len(found["graph_lost"])
    for key, shown in (("eager_us", "a sum"), ("host_us", "a launch"), ("graph_us", "in a graph")):
        if found[key] is not None:
            yield f"{ranks}, {shown}, µs", found[key]
