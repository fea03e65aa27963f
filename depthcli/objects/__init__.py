"""Objects of a picture with their depth: masks joined with a DepthMap."""
