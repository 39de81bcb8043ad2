"""End the whole job at once when a rank cannot go on.

An uncaught exception under plain ``python`` with MPI started would hang the job: the process
waits in MPI_Finalize for the others. So the program that owns the job ends it instead.
"""

import os
import sys
import threading

_LEAVE_S = 10.0
"""MPI_Abort waits for the launcher, and a flush for whoever reads the output."""


def end_job(code: int) -> None:
    """End every process of the job with ``code`` (never returns). For entry points only."""
    leave = threading.Timer(_LEAVE_S, os._exit, (code,))
    leave.daemon = True
    leave.start()
    sys.stdout.flush()
    sys.stderr.flush()
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI

        if MPI.Is_initialized() and not MPI.Is_finalized():
            MPI.COMM_WORLD.Abort(code)
    # horovodrun --gloo ends the others when one leaves with a code other than 0.
    os._exit(code)
