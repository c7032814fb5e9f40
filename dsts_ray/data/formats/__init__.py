"""Readers of published annotation formats."""
