"""What looks at more than one frame of a clip: windows of a video network, cuts, flow and filters. Numpy alone."""
