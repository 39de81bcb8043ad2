"""The Horovod edge: start-up, groups of ranks, agreement on errors."""
