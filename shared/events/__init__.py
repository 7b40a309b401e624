"""The events that services tell: their names, and what each carries."""
