"""Configuration: schema, presets and the one loader (no torch, no ray)."""
