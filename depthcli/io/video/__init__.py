"""Frames in, frames out, and the spool between them."""
