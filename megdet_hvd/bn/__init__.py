"""Cross-GPU Batch Normalisation (§3.3)."""
