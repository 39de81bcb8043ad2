"""Pictures of curves and of detections."""
