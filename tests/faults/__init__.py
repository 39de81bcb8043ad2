"""A campaign of injected faults against real runs: ``python -m tests.faults --help``."""
