"""Steering: what a verdict does to the next tokens."""
