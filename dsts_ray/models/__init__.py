"""Models: backbones, DSTS and the recognizer (torch only)."""
