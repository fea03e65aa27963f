"""A picture as seen from beside its camera: two eyes for stereo, and how files show them. Numpy and OpenCV."""
