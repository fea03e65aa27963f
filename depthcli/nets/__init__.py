"""Torch modules: forward passes, how they are built, and how a checkpoint becomes their weights."""
