"""How a service runs: its processes on one machine, on Flink and on Spark."""
