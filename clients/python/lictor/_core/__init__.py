"""The hand-written client. Import its names from `lictor`; this package may change between releases."""
