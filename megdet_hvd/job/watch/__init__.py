"""Ends a job that hangs, and says which rank stands where.

Horovod's own stall inspector is no safety net: of two process sets it saw one set's stall, and
the job hung all the same; a stopped process it does not see at all. So a thread of every process,
outside Horovod, watches where the training thread stands (:mod:`megdet_hvd.comm.position`) and
tells rank 0 over a TCP connection of its own. Rank 0 judges; where rank 0 itself is silent, the
others do.
"""

from megdet_hvd.job.watch.start import DEFAULT_LIMIT_S, Watchdog, start_watchdog

__all__ = ["DEFAULT_LIMIT_S", "Watchdog", "start_watchdog"]
