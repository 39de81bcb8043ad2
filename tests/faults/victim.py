"""Run by every rank of an attempt: training or the pipeline, in which faults happen.

``MEGDET_FAULTS`` names a JSON file: the program, the faults, and where to tell of each as it takes
effect. The rest is the program's own command line. The moments:

    start       before the program begins
    step        a training step begins
    bn          in a sum of CGBN, in a step
    evaluation  a batch is evaluated, or its pictures are drawn
    checkpoint  a checkpoint's file is written, and has not yet its name
"""

import builtins
import errno
import functools
import io
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch

from megdet_hvd.bn.carriers import Carrier
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.comm.position import compute, go_outside, place, waiting
from tests.engine.small import thin_backbones
from tests.faults.draw import Fault

PAUSE_S = 1.5
FULL_STEPS = 3
"""As many as there are between checkpoints: one of them finds no room."""
DAY_S = 86400.0
LAUNCHERS_VARIABLES = ("OMPI_", "PMIX_", "PMI_", "HOROVOD_", "MEGDET_")


class InjectedFault(Exception):
    """Injected."""


class Victim:
    """The faults of this rank, and how far it is."""

    def __init__(self, plan: dict[str, Any], rank: int) -> None:
        self.plan, self.rank = plan, rank
        self.faults = [
            fault for fault in (Fault(**one) for one in plan["faults"]) if fault.rank == rank
        ]
        self.steps = 0
        self.last_step = 0
        self.full_until: int | None = None
        self.reads: Callable[[], None] | None = None
        self.checkpoint_reads: Callable[[], None] | None = None
        self.corrupts: Callable[[Any], None] | None = None
        self.nan = False
        self.skips = False
        self.armed: list[Fault] = []
        self.lock = threading.Lock()
        if plan["program"] == "pipeline" and rank == plan["ranks"] - 1:  # it evaluates: no steps
            self.armed = [fault for fault in self.faults if fault.moment == "evaluation"]
            self.faults = [fault for fault in self.faults if fault.moment != "evaluation"]

    def tell(self, fault: Fault, **more: Any) -> None:
        """That a fault takes effect now, on the disk before anything else happens."""
        record = {"kind": fault.kind, "rank": self.rank, "step": self.last_step, **more}
        handle = os.open(self.plan["events"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, (json.dumps(record) + "\n").encode())
        os.fsync(handle)
        os.close(handle)

    def begin_step(self, step: int) -> None:
        """A training step begins: what is due in it happens, or is armed for its moment."""
        if step == self.last_step:  # another accumulated pass
            return
        self.last_step, self.steps = step, self.steps + 1
        if self.full_until is not None and step >= self.full_until:
            self.full_until = None
            self._filler().unlink()
        for fault in [f for f in self.faults if f.moment not in ("start", "before")]:
            if self.steps >= fault.after_steps:
                self.faults.remove(fault)
                if fault.moment == "step":
                    self.happen(fault)
                else:
                    self.armed.append(fault)

    def moment(self, name: str, kinds: tuple[str, ...] = ()) -> None:
        """The moment has come: faults armed for it happen; ``kinds``: these alone."""
        with self.lock:
            due = [f for f in self.armed if f.moment == name and (not kinds or f.kind in kinds)]
            self.armed = [fault for fault in self.armed if fault not in due]
        for fault in due:
            self.happen(fault)

    def happen(self, fault: Fault) -> None:
        """One fault takes effect."""
        getattr(self, "_" + fault.kind.lower().replace(" ", "_"))(fault)

    # What ends a process, or holds it up.

    def _kill(self, fault: Fault) -> None:
        self.tell(fault)
        os.kill(os.getpid(), signal.SIGKILL)

    _evaluator_killed = _kill

    def _stopped(self, fault: Fault) -> None:
        self.tell(fault)
        os.kill(os.getpid(), signal.SIGSTOP)

    def _paused(self, fault: Fault) -> None:
        alarm = ["sh", "-c", f"sleep {PAUSE_S}; kill -CONT {os.getpid()}"]
        with subprocess.Popen(alarm, start_new_session=True):
            os.kill(os.getpid(), signal.SIGSTOP)
        self.tell(fault)

    def _term_or_usr1(self, fault: Fault) -> None:
        number = (signal.SIGTERM, signal.SIGUSR1)[fault.draw % 2]
        if fault.moment == "start":
            delay_s = fault.draw % 4001 / 1000

            def later() -> None:
                self.tell(fault, signal=number.name, after_s=delay_s)
                os.kill(os.getpid(), number)

            timer = threading.Timer(delay_s, later)
            timer.daemon = True
            timer.start()
        else:
            self.tell(fault, signal=number.name)
            os.kill(os.getpid(), number)

    def _loader_killed(self, fault: Fault) -> None:
        workers = multiprocessing.active_children()
        if workers and workers[0].pid is not None:
            self.tell(fault, pid=workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    # What goes wrong in the program.

    def _exception(self, fault: Fault) -> None:
        self.tell(fault)
        raise InjectedFault("in a step")

    def _evaluator_fails(self, fault: Fault) -> None:
        self.tell(fault)
        raise InjectedFault("in an evaluator")

    def _side_product(self, fault: Fault) -> None:
        self.tell(fault)
        kind = (ValueError, MemoryError, KeyError, RuntimeError, UnicodeError)[fault.draw % 5]
        raise type("InjectedFault", (kind,), {})("in a picture")

    def _nan(self, fault: Fault) -> None:
        self.tell(fault)
        self.nan = True

    def _skipped_layer(self, fault: Fault) -> None:
        self.tell(fault)
        self.skips = True

    def _clock(self, fault: Fault) -> None:
        self.tell(fault)
        true_time = time.time
        mock.patch("time.time", lambda: true_time() - DAY_S).start()

    # What goes wrong with storage.

    def _filler(self) -> Path:
        return Path(self.plan["disk"]) / "filler"

    def _full_disk(self, fault: Fault) -> None:
        with suppress(OSError), self._filler().open("ab", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                with suppress(OSError):
                    while True:
                        os.write(file.fileno(), b"\0" * size)
        self.full_until = self.last_step + FULL_STEPS
        self.tell(fault)

    def _full_disk_at_the_stop(self, fault: Fault) -> None:
        self._full_disk(fault)
        self.full_until = None
        os.kill(os.getpid(), signal.SIGTERM)

    def _failing_read(self, fault: Fault, *, always: bool) -> None:
        number = (errno.ESTALE, errno.EIO)[fault.draw % 2]

        def fail() -> None:
            if not always:
                self.reads = None
            self.tell(fault, error=errno.errorcode[number])
            raise OSError(number, os.strerror(number))

        self.reads = fail

    def _storage_once(self, fault: Fault) -> None:
        self._failing_read(fault, always=False)

    def _storage_for_good(self, fault: Fault) -> None:
        self._failing_read(fault, always=True)

    def _unreadable_checkpoint(self, fault: Fault) -> None:
        def fail() -> None:
            self.tell(fault)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.checkpoint_reads = fail

    def opens(self, path: Any, mode: str) -> None:
        """A file is opened, by Python's own functions."""
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if "r" not in mode or not isinstance(name, str):
            return
        if name.endswith(".png"):
            corrupt = self.corrupts
            if corrupt is not None and "/train/" in name:  # one for validation is the user's
                self.corrupts = None
                corrupt(name)
            if self.reads is not None:
                self.reads()
        elif self.checkpoint_reads is not None and "iteration_" in name:
            self.checkpoint_reads()

    def _corrupt_picture(self, fault: Fault) -> None:
        def fail(path: Any) -> None:
            self.tell(fault, path=str(path))
            content = Path(path).read_bytes()
            Path(self.plan["mend"]).write_text(json.dumps([str(path), content.hex()]))
            Path(path).write_bytes(content[: len(content) // 3])

        self.corrupts = fail

    # Strangers.

    def _second_writer(self, fault: Fault) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS_VARIABLES)}
        env["MEGDET_FAULTS_MARK"] = os.environ["MEGDET_FAULTS_MARK"]
        done = subprocess.run(
            [sys.executable, "-m", "megdet_hvd.train", *sys.argv[1:]],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        self.tell(fault, code=done.returncode)
        lines = [line for line in done.stdout.splitlines() if line.startswith("error:")]
        sys.stdout.write(f"SECOND WRITER refused with {done.returncode}: {' '.join(lines)[:900]}\n")
        sys.stdout.flush()

    def _strangers(self, fault: Fault) -> None:
        draw = random.Random(fault.draw)
        ports = sorted(listening_ports(os.environ["MEGDET_FAULTS_MARK"]))
        held = []
        for port in ports:
            for _ in range(3):
                with suppress(OSError):
                    stranger = socket.create_connection(("127.0.0.1", port), timeout=2)
                    stranger.sendall(strange_line(draw))
                    held.append(stranger)
        if held:
            self.tell(fault, ports=len(ports))
        time.sleep(0.3)
        for stranger in held:
            stranger.close()


def strange_line(draw: random.Random) -> bytes:
    """What somebody who knows nothing of a port may send to it."""
    return draw.choice(
        (
            b"[" * 100_000 + b"\n",
            b'{"hello":1,"nonce":"x","proof":"\xc3\xa9"}\n',
            b'{"hello":1,"nonce":"\\ud800","proof":"x"}\n',
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"PUT /megdet_hvd_1/all HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b'{"hello":0,"proof":null}\n' * 50,
            b"\0" * 70_000,
            b"",
            draw.randbytes(draw.randint(1, 5000)),
            b"9" * 5000 + b"\n",
        )
    )


def listening_ports(mark: str) -> set[int]:
    """TCP ports that the processes of this attempt listen on, launchers' own excepted.

    What Open MPI's and Horovod's launchers make of strangers is theirs to mend.
    """
    found: set[int] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            name = " ".join(process.cmdline()[:3])
            if process.environ().get("MEGDET_FAULTS_MARK") != mark or "python" not in name:
                continue
            if "horovodrun" in name or "forkserver" in " ".join(process.cmdline()):
                continue
            found |= {
                one.laddr.port
                for one in process.net_connections("tcp")
                if one.status == psutil.CONN_LISTEN
            }
    watched = os.environ.get("MEGDET_FAULTS_PORTS")
    return found if watched is None else found & {int(port) for port in watched.split(",")}


@contextmanager
def hooks(victim: Victim) -> Iterator[None]:
    """The moments, hung into the program."""

    import megdet_hvd.engine.step.loop

    share_of_mean = megdet_hvd.engine.step.loop.share_of_mean
    enter, carrier_sum = waiting.__enter__, Carrier.sum
    save = torch.save

    def at_compute(step: int, part: str) -> None:
        compute(step, part)
        if part == "forward":
            victim.begin_step(step)

    def at_share(*args: Any) -> torch.Tensor:
        share = share_of_mean(*args)
        return share * float("nan") if victim.nan else share

    def at_waiting(self: waiting) -> None:
        enter(self)
        if place()[0].name.startswith("cgbn."):
            victim.moment("bn")

    def at_sum(self: Carrier, vector: torch.Tensor, name: str) -> torch.Tensor:
        if victim.skips and ".layer1.0.bn2.forward" in name:
            victim.skips = False
            return vector * self.size
        return carrier_sum(self, vector, name)

    def at_outside(what: str) -> None:
        go_outside(what)
        victim.moment("evaluation", ("kill", "paused", "TERM or USR1", "evaluator killed"))
        victim.moment("evaluation", ("evaluator fails",))

    def at_picture(*args: Any, **more: Any) -> Any:
        victim.moment("evaluation", ("side product",))
        return figure_save(*args, **more)

    def at_save(*args: Any, **more: Any) -> None:
        save(*args, **more)
        victim.moment("checkpoint")

    def watched(true: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(true)
        def at_open(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            victim.opens(path, mode)
            return true(path, mode, *args, **more)

        return at_open

    from matplotlib.figure import Figure

    figure_save = Figure.savefig
    with ExitStack() as stack:
        for target, name, value in (
            (megdet_hvd.engine.step.loop, "compute", at_compute),
            (megdet_hvd.engine.step.loop, "share_of_mean", at_share),
            (waiting, "__enter__", at_waiting),
            (Carrier, "sum", at_sum),
            (Figure, "savefig", at_picture),
            (torch, "save", at_save),
            (builtins, "open", watched(builtins.open)),
            (io, "open", watched(io.open)),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(mock.patch("megdet_hvd.evaluation.inference.go_outside", at_outside))
        yield


def main() -> int:
    """Run the program with this rank's faults; returns its exit code."""
    plan = json.loads(Path(os.environ["MEGDET_FAULTS"]).read_text())
    victim = Victim(plan, read_launch(os.environ).rank or 0)
    with thin_backbones(), hooks(victim):
        for fault in [fault for fault in victim.faults if fault.moment == "start"]:
            victim.happen(fault)
        if plan["program"] == "pipeline":
            from megdet_hvd.pipeline.__main__ import main as program
        else:
            from megdet_hvd.train import main as program
        return program(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
