"""What ``python -m megdet_hvd.doctor`` says of the machine."""

import subprocess
import sys
from collections.abc import Iterator

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.pytests import ROOT
from tests.gpu.visit.record import Value


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Its findings are in the log."""
    command = [sys.executable, "-m", "megdet_hvd.doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr, flush=True)
    yield "exit code", done.returncode
    for line in done.stdout.splitlines():
        if "GPU" in line:
            yield f"says: {line.strip()[:100]}", True
