"""Prototypes for RAS: fitted on labelled turns, told with what they are worth."""
