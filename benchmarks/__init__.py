"""This service against plain loops, in one run and by turns: `python -m benchmarks`. README.md says how.

mobilenet   the network that is served
writers     write it in every model format
workloads   what is served: the model, the requests
frameworks  runs a model of each format as its own framework does
handwritten what anyone would write without this package: decode, infer, rank
plain_loop  targets `loop` and `loops`: these steps in a process, without a queue
redis_loop  target `redis_loop`: these steps behind a Redis stream
engine_loop targets `auto` and `native`: an engine of this package alone
targets     starts each of them, and the service, and makes them work
runners     the service on each of several runners, and how it is measured where it drains at intervals
load        the load generator: fills queues, waits for results
rounds      which target is measured when
summary     medians, ratios, table
formats     the workload that compares every model format
plot        the same as a picture
compare     the command line, and the course of a run

It imports `beam_serving`, which knows nothing of it. For a service and a model of your own there is
`beam-serving bench`.
"""
