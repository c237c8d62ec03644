"""Studies of choices and their effect on the demo's scores; each writes a page."""
