"""Scenes to files and back: each format's writer beside its reader."""
