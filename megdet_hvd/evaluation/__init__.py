"""From a detector to COCO's numbers: inference over ranks, gathering, AP, results JSON."""
