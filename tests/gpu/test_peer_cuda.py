"""bn.carrier=peer on one GPU: ranks as its streams, and two processes that share it.

In processes of their own: CUDA reads the number of hardware queues when it starts, and a sum that
waits for a stream in the same queue would only be lost after its patience.
"""

import json
import subprocess
import sys

from tests.comm.peer.two_processes import check_two_processes
from tests.ranks import ROOT


def test_ranks_as_streams_have_the_sum_to_the_bit() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.peer_sums"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=170,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [times["ranks"] for times in found] == [2, 4, 8]
    for times in found:
        assert (times["wrong"], times["lost"]) == (0, []), times
        assert (times["graph_wrong"], times["graph_lost"]) == (0, []), times
        assert times["graph_us"] <= 30, times


def test_two_processes_share_memory() -> None:
    first, second = check_two_processes()
    cases = ("self-test", "exact", "late", "wrong name")
    assert first == dict.fromkeys((*cases, "killed"), "right")
    assert second == dict.fromkeys(cases, "right")
