"""Depth maps to files and back: one table of formats."""
