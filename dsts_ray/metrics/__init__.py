"""Metrics of recognition and of specialization, from predictions."""
