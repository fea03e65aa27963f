"""Measuring speed, memory and steadiness."""
