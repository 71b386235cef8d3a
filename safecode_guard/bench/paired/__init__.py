"""The paired benchmark: one request, two scenes."""
