"""One Slurm job, from the batch script's call to its requeue: ``python -m megdet_hvd.slurm_job``.

It starts no rank itself: it chooses the site's launcher, waits, reads how the run ended, and
decides what becomes of the job. Neither torch nor Horovod is imported here.
"""
