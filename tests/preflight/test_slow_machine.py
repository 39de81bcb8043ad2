"""A machine whose network is slowed for real, by the kernel: its preflight names it.

Three network namespaces with host names of their own stand for three machines; the third's port
passes 300 Mbit/s. Needs root, iproute2 and a kernel that lets namespaces be made.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import run_ranks

NAMES = [f"megdet{os.getpid()}{i}" for i in (1, 2, 3)]
NETWORK = "10.77.0"
SLOW = ("tbf", "rate", "300mbit", "burst", "256kb", "latency", "200ms")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def make_network() -> None:
    """A bridge in the first namespace, and a cable from it to each of the others."""
    for name in NAMES:
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    first = NAMES[0]
    ip("-n", first, "link", "add", "bridge", "type", "bridge")
    ip("-n", first, "addr", "add", f"{NETWORK}.1/24", "dev", "bridge")
    ip("-n", first, "link", "set", "bridge", "up")
    for i in (2, 3):
        own = NAMES[i - 1]
        ip("link", "add", f"port{i}", "netns", first, "type", "veth", "peer", "eth0", "netns", own)
        ip("-n", first, "link", "set", f"port{i}", "master", "bridge", "up")
        ip("-n", own, "addr", "add", f"{NETWORK}.{i}/24", "dev", "eth0")
        ip("-n", own, "link", "set", "eth0", "up")
    for name, device in ((first, "port3"), (NAMES[2], "eth0")):
        ip("netns", "exec", name, "tc", "qdisc", "add", "dev", device, "root", *SLOW)


@pytest.fixture
def network() -> Iterator[None]:
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        pytest.skip("a really slow machine was not tried: needs root and iproute2 (ip, tc)")
    try:
        make_network()
        yield
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a really slow machine was not tried: {error.stderr.decode().strip()}")
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


MPIRUN = """#!/bin/bash
# Start mpirun, or a daemon of its (`$1` is then an address), on the machine of that number.
number=$1; shift
exec ip netns exec {base}${{number##*.}} unshare --uts bash -c \
    'hostname "node$0"; exec "$@"' "${{number##*.}}" bash -c "$*"
"""


@pytest.mark.alone
@pytest.mark.usefixtures("network")
def test_a_slow_machine_is_named(tmp_path: Path) -> None:
    agent = tmp_path / "agent.sh"
    agent.write_text(MPIRUN.format(base=NAMES[0][:-1]))
    agent.chmod(0o755)
    only = f"{NETWORK}.0/24"
    settings = {
        "OMPI_MCA_plm": "rsh",
        "OMPI_MCA_plm_rsh_agent": str(agent),
        "OMPI_MCA_btl": "self,vader,tcp",
        "OMPI_MCA_btl_tcp_if_include": only,
        "OMPI_MCA_oob_tcp_if_include": only,
    }
    mpirun = "mpirun -np 3 -H " + ",".join(f"{NETWORK}.{i}" for i in (1, 2, 3))
    program = f"{mpirun} -x PYTHONPATH python -m megdet_hvd.preflight device=cpu"
    start = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    done = run_ranks(
        ["-c", start], 1, agent, "1", program, launcher="python", timeout_s=180, env=settings
    )
    assert done.returncode == 0, done.stdout
    for i in (1, 2, 3):
        assert f"node{i}: rank {i - 1}, local size 1, cross size 3" in done.stdout, done.stdout
    warnings = [line for line in done.stdout.splitlines() if "far below" in line]
    assert len(warnings) == 1, done.stdout
    assert "node3 is far below the others" in warnings[0]
