"""Distributed training for fine-grained video recognition with DSTS and UDL."""

__version__ = "0.1.0"
