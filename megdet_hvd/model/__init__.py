"""Faster R-CNN with a feature pyramid, from torchvision's parts."""
