"""What makes the depth of a clip one thing over time. Numpy and OpenCV only."""
