"""What a job's driver tells its ranks, by environment variables; they work under every launcher.

:mod:`megdet_hvd.slurm_job` sets them; a program started by hand has none of them and goes without.
"""

NOTE = "MEGDET_NOTE"
"""Folders, one a line, in which the batch script notes that the job shall stop: an empty file
``note.USR1``, ``note.TERM`` or ``note.USR2`` in one of them. The driver reads it."""
SCRIPT = "MEGDET_SCRIPT"
"""Path of the batch script that runs: Slurm's copy of the template."""
WORDS = "MEGDET_WORDS"
"""The words that the user gave behind the template, joined by :data:`WORDS_JOINED_BY`."""
WORDS_JOINED_BY = "\x1f"
STOP_FILE = "MEGDET_STOP_FILE"
"""Path of a file. Once it is there the job shall stop in order; its content says why."""
OUTCOME = "MEGDET_OUTCOME"
"""Path of the file that says how the program ended; see :mod:`megdet_hvd.cluster.outcome`."""
RANK_LOGS = "MEGDET_RANK_LOGS"
"""Folder that the output of ranks other than 0 goes to, a file each."""
CPUS_PER_TASK = "MEGDET_CPUS_PER_TASK"
"""Cores for each process."""
NETWORK_CARDS = "MEGDET_NETWORK_CARDS"
"""Names of network cards, one for each local rank, one space between two."""
NODES = "MEGDET_NODES"
"""Machines that were asked for."""
TASKS_PER_NODE = "MEGDET_TASKS_PER_NODE"
"""Processes on each machine that were asked for."""
SITE_EXPORTS = "MEGDET_SITE_EXPORTS"
"""Names of the variables that the site file has exported, one space between two."""
