"""Fine-tune a model on pictures with measured depth. How the packaged model was made is in training/, apart from this."""
