"""Drawings of everyday scenes: a pen, and one function per kind of scene."""
