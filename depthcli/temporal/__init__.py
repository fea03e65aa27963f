"""What makes the depth of a clip steady over time: numpy and OpenCV only."""
