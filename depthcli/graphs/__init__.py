"""What a forward pass is turned into: a graph for any size, or a static, folded and traced one."""
