"""Measurements of Interlace itself: what it gains, beside what a user would do otherwise."""
