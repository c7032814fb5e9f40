"""Distributed training for fine-grained video recognition with DSTS and Upstream-Downstream Learning."""

__version__ = "0.1.0"
