"""Launching: the only place that knows Ray Train and Ray Tune."""
