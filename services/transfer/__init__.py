"""Licenses in files: what `lictor licenses import` and `lictor licenses export` do, over the public API alone."""
