"""Serving on Flink: the job server, the driver that submits the pipeline to it, and the workers that run its steps."""
