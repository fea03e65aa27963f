"""What a forward pass is turned into: any size, static, folded, traced."""
