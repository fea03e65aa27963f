"""Training of the packaged small model on synthetic scenes; not part of the installed package."""
