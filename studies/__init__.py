"""Studies on the demo: the effect of choices on scores, each with the page it writes."""
