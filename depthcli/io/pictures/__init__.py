"""Pictures in: every format, upright, with 8 bits."""
