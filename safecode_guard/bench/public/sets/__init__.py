"""The data sets: one file each, with its format, its licence and where it is to be had."""
