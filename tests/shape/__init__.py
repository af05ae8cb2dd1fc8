"""Checks of the source tree that no compiler makes, and a self-test that each of them can fail."""
