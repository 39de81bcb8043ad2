"""One visit of minutes to a machine with one GPU and no network: docs/gpu_visit.md."""
