"""What a service says of itself: counters, reports, log lines."""
