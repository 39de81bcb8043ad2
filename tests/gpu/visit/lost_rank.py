"""A rank that is killed, and one that is stopped: the job ends, and says which."""

import socket
import time
from collections.abc import Iterator

from megdet_hvd.errors import HANG
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.ranks import run_case
from tests.gpu.visit.record import Value


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Sums that the host does not wait for must not hide who is missing."""
    for case in ("killed", "stopped"):
        began = time.monotonic()
        ended = run_case(setting, case, 2, limit_s=75)
        yield f"{case}, the job ended after, s", time.monotonic() - began
        yield f"{case}, exit code is not 0", ended.code != 0
        yield f"{case}, rank 1 is named", f"rank 1 ({socket.gethostname()})" in ended.output
        told = "no sign of life" if case == "stopped" else "ended without a word"
        lines = [line for line in ended.output.splitlines() if told in line]
        yield f"{case}, told", lines[0][:160] if lines else "nothing"
        yield f"{case}, rank 0 had taken steps", ended.ranks[0].get("step", 0)
    yield "a hang's exit code", HANG
