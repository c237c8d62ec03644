"""`make gpu`: all that needs a GPU, in one command and at most ten minutes."""
