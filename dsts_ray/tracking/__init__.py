"""Tracking and registry: the only place that knows MLflow."""
