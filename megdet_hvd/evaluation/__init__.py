"""Inference over ranks and COCO average precision."""
