"""How Open MPI meets under ``srun --mpi=pmix``.

In MPI_Init its processes meet twice, in fences of Slurm's PMIx. On Slurm 22.05 one of them may
leave the second fence while another has not yet been let out of the first; that one then has
nobody to take the first message, and dies of a segmentation fault (open-mpi/ompi#12495 tells of
the same on a real cluster). *Measured* with 16 processes on 8 simulated nodes of one machine: 17
of 106 starts. With a single fence, which Open MPI waits for only once it can take messages: none of
106.

Where Slurm's PMIx has munge, it offers that first, and a process whose PMIx has none prints 20
lines of an error that is none ("A requested component was not found … psec … munge") before it
takes the second offer. It is told to take that at once.
"""

from collections.abc import MutableMapping

from megdet_hvd.cluster.launch import Launch

VARIABLES = {"OMPI_MCA_pmix_base_async_modex": "1"}
"""Open MPI 4.1 reads them in MPI_Init; other MPI libraries don't know them."""

_OFFERED, _TAKEN, _ALWAYS_THERE = "PMIX_SECURITY_MODE", "PMIX_MCA_psec", "native"


def meet_once(launch: Launch, environ: MutableMapping[str, str]) -> None:
    """Set them for this process, before MPI starts; what the user has set stands."""
    if launch.launcher == "srun":
        for name, value in VARIABLES.items():
            environ.setdefault(name, value)
        offers = environ.get(_OFFERED, "").split(",")
        if _ALWAYS_THERE in offers[1:]:
            environ.setdefault(_TAKEN, _ALWAYS_THERE)
