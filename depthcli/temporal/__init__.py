"""Steady the depth of a clip over time, with numpy and OpenCV."""
