"""Score predictions against measured depth. Numpy only; no backend, no terminal."""
