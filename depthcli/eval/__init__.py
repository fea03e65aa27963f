"""Scores: how near a prediction comes to a measured truth, by which protocol. Numpy only; no engine, no terminal."""
