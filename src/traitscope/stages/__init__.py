"""One file a stage: a plain function, and its run_* wrapper that writes a run directory."""
