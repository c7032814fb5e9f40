"""Procedural demo data: rendered videos in the on-disk layouts of the public data sets."""
