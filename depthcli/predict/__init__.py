"""A model row, a backend and the processes around them: pictures and clips to depth maps."""
