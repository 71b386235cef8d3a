"""Judges: scene and request in, a judgement out."""
