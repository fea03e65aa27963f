"""Picture to network input and back; colours. Numpy and OpenCV only."""
