"""What ``jobs/bench.py`` runs: each bench compares two ways of doing the same work."""
