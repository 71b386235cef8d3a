"""Benchmarks: what guarding costs (`speed`) and what it gives (`paired`)."""
