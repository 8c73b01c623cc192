"""Draining the queue on Spark: its master, the flags and options of its job server, and the driver."""
