"""Two processes that share GPU memory through CUDA IPC: what must come of their sums.

``check_two_processes()`` on a machine with a GPU; both processes may use the same one, by turns of
its time, so that nothing is timed. ``emulated=True``: on a GPU that is emulated on the CPU.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from megdet_hvd.comm.peer.memory import GpuAccess, PeerMemory, gpu_access
from megdet_hvd.comm.peer.self_test import known_vector, self_test
from megdet_hvd.comm.peer.sums import PeerSums
from tests.comm.peer.emulated import not_waiting_access

SUMS = 300
PATIENCE_S = 10.0
"""Every wait ends by itself."""
LATE_S = 2.0
"""How late a rank comes; more than the second after which the other one's GPU tells."""
RESULT_S = 120.0
"""For all cases of one rank, most of which is the start of CUDA."""

Results = dict[str, str]
"""What came of each case: ``right``, or what is wrong."""


def check_two_processes(emulated: bool = False) -> tuple[Results, Results]:
    """All cases, as the first and the second process saw them; the second is killed in the last.

    Raises:
        AssertionError: a process does not answer in time.
    """
    context = multiprocessing.get_context("spawn")
    first, second = context.Pipe()
    answers, processes = [], []
    for place, pipe in enumerate((first, second)):
        mine, theirs = context.Pipe()
        process = context.Process(target=_rank, args=(place, pipe, theirs, emulated))
        process.start()
        theirs.close()
        pipe.close()
        answers.append(mine)
        processes.append(process)
    found: tuple[Results, Results] = ({}, {})
    end = time.monotonic() + RESULT_S
    try:
        for answer, results in zip(answers, found, strict=True):
            while True:
                left_s = max(end - time.monotonic(), 0)
                assert answer.poll(left_s), f"no answer in {RESULT_S:.0f} s, after {results}"
                try:
                    results.update([answer.recv()])
                except EOFError:
                    break
    finally:
        for process in processes:
            process.kill()
            process.join()
    return found


def _rank(place: int, other: Connection, answer: Connection, emulated: bool) -> None:
    os.environ["CUDA_MODULE_LOADING"] = "EAGER"
    if emulated:
        gpu = not_waiting_access(torch.device("cpu"))
    else:
        device = torch.device("cuda", 0)
        torch.cuda.set_device(device)
        torch.zeros(1, device=device)
        gpu = gpu_access(device)
    cases: dict[str, Callable[[_Member], str]] = {
        "self-test": _self_test,
        "exact": _exact,
        "late": _late,
        "wrong name": _wrong_name,
        "killed": _killed,
    }
    for name, case in cases.items():
        answer.send((name, case(_Member(gpu, place, other))))
    answer.close()


class _Member:
    """One process's sums, opened with the other's."""

    def __init__(self, gpu: GpuAccess, place: int, other: Connection) -> None:
        self.gpu, self.place = gpu, place
        self._kept: list[torch.Tensor] = []
        memory = PeerMemory(gpu, 2)
        other.send_bytes(memory.handle)
        theirs = other.recv_bytes()
        memory.connect(place, [memory.handle, theirs] if place == 0 else [theirs, memory.handle])
        self.sums: PeerSums = memory.sums((0, 1), place)
        memory.set_patience(place, PATIENCE_S)
        other.send_bytes(b"open")  # nobody writes before both are
        other.recv_bytes()

    def put(self, number: int, length: int, name: str | None = None) -> torch.Tensor:
        vector = known_vector(self.place, number, length).to(self.gpu.device)
        self._kept.append(vector)  # an emulated GPU knows nothing of torch's allocator
        self.sums.add_up(vector, name or f"sum{number}", self.gpu.stream())
        return vector

    def ended(self, within_s: float) -> bool:
        end = time.monotonic() + within_s
        while not self.gpu.driver.is_idle(self.gpu.stream()):
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def alive(self) -> bool:
        """Whether the GPU still computes for this process."""
        return float(torch.ones(3, device=self.gpu.device).sum()) == 3.0


def _right(number: int, length: int) -> torch.Tensor:
    return known_vector(0, number, length) + known_vector(1, number, length)


def _self_test(member: _Member) -> str:
    return self_test(member.sums, member.gpu, member.place) or "right"


def _exact(member: _Member) -> str:
    lengths = [1 + 37 * number % 4097 for number in range(SUMS)]
    found = [member.put(number, length) for number, length in enumerate(lengths)]
    if not member.ended(10 * PATIENCE_S):
        return "the sums do not end"
    wrong = sum(
        not torch.equal(vector.cpu(), _right(number, len(vector)))
        for number, vector in enumerate(found)
    )
    return f"{wrong} of {SUMS} sums are wrong" if wrong else member.sums.lost() or "right"


def _late(member: _Member) -> str:
    """The second comes late: the first one's GPU tells what it waits in, then has the sum."""
    if member.place == 1:
        time.sleep(LATE_S)
    vector = member.put(0, 65, "cgbn.late")
    told = None
    while not member.ended(0.01):
        told = told or member.sums.long_sum()
    if not torch.equal(vector.cpu(), _right(0, 65)):
        return f"a wrong sum ({member.sums.lost()})"
    if member.place == 0 and (told is None or told[:2] != ("cgbn.late", 65)):
        return f"nothing was told of the wait ({told})"
    return "right" if member.sums.long_sum() is None else "it is still told of"


def _wrong_name(member: _Member) -> str:
    names = ("cgbn.a", "cgbn.b")
    for number, name in enumerate(names):
        member.put(number, 9, name)
    vector = member.put(2, 9, names[member.place])
    later = member.put(3, 9)
    if not member.ended(4 * PATIENCE_S):
        return "the sums do not end"
    told = member.sums.lost() or "nothing"
    own, their = names[member.place], names[1 - member.place]
    expected = f"this one sums {own} (9 values), that of rank {1 - member.place} {their} (9)"
    if expected not in told or not later.isnan().all() or not member.sums.is_lost():
        return f"told: {told}; {int(vector.isnan().sum())} and {int(later.isnan().sum())} are nan"
    return "right" if member.alive() else "the GPU computes no more"


def _killed(member: _Member) -> str:
    """The second is killed with sums under way: the first one's GPU goes on without it."""
    member.put(0, 2000)
    if member.place == 1:
        member.ended(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGKILL)
    vector = member.put(1, 2000, "cgbn.alone")
    began = time.monotonic()
    while not member.sums.long_sum() and time.monotonic() - began < PATIENCE_S:
        time.sleep(0.01)
    told = member.sums.long_sum()
    member.sums.give_up()
    if not member.ended(PATIENCE_S):
        return "the GPU is not let go"
    if told is None or told[0] != "cgbn.alone" or "given up" not in (member.sums.lost() or ""):
        return f"told: {told}, {member.sums.lost()}"
    if not vector.isnan().all():
        return "a sum without the other's part"
    return "right" if member.alive() else "the GPU computes no more"
