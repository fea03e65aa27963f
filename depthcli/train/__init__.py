"""Fine-tune a model on pictures with measured depth. How `tiny` was made is in training/, outside the package."""
