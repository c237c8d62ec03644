"""One Click entrypoint per DVC stage: parse, validate, call, write."""
