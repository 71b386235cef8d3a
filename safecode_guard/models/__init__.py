"""What is asked of a model: the protocols of an engine, and families as data."""
