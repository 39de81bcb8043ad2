"""Pictures that people look at: training curves, and detections beside their ground truth."""
