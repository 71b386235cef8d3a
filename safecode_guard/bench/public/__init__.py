"""Public benchmarks, from a directory of the user's own: their data sets, metrics and graders."""
