"""What `tests/run` is made of: parts, children, tally."""
