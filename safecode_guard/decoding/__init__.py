"""Decoding: one loop over cached branches, guided for a few steps, free afterwards."""
