"""Benchmarks of Interlace against the plain ways to do the same work."""
