"""How Open MPI meets under ``srun --mpi=pmix``.

In MPI_Init its processes meet twice, in fences of Slurm's PMIx. On Slurm 22.05 one of them may
leave the second fence while another has not yet been let out of the first; that one then has
nobody to take the first message, and dies of a segmentation fault (open-mpi/ompi#12495 tells of
the same on a real cluster). *Measured* with 16 processes on 8 simulated nodes of one machine: 17
of 106 starts. With a single fence, which Open MPI waits for only once it can take messages: none of
106.
"""

from collections.abc import MutableMapping

from megdet_hvd.cluster.launch import Launch

VARIABLES = {"OMPI_MCA_pmix_base_async_modex": "1"}
"""Open MPI 4.1 reads them in MPI_Init; other MPI libraries don't know them."""


def meet_once(launch: Launch, environ: MutableMapping[str, str]) -> None:
    """Set them for this process, before MPI starts; what the user has set stands."""
    if launch.launcher == "srun":
        for name, value in VARIABLES.items():
            environ.setdefault(name, value)
