"""What a federation does right now: Prometheus, logs, top."""
