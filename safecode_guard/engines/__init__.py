"""Engines: what answers and scores a turn, each behind `safecode_guard.models.protocol`."""
