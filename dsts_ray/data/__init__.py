"""Data: from a release folder to uint8 clips."""
