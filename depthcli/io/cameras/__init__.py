"""Cameras from calibration files: one reader per format, and the rules for which picture each camera belongs to."""
