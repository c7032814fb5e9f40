"""Backbones: clips in, features out."""
