"""Training: one step, the loop, evaluation and checkpoints (no Ray)."""
