"""Networks in torch: forward passes, how they are built, and how they get the weights of a checkpoint."""
