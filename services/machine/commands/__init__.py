"""One write per module."""
