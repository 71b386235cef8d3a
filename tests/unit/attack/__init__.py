"""Attacks that broke a promise once, each as the smallest test that shows it."""
