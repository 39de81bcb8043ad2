"""What lands in a run's folder, besides its checkpoints."""
