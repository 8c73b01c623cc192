"""`beam-serving bench`: this service against plain loops, in one run and by turns. benchmarks/README.md says how.

mobilenet   the network that is served
writers     write it in every model format
workloads   what is served: the model, the requests
frameworks  runs a model of each format as its own framework does
handwritten what anyone would write without this package: decode, infer, rank
plain_loop  contestants `loop` and `loops`: these steps in a process, without a queue
redis_loop  contestant `redis_loop`: these steps behind a Redis stream
engine_loop contestants `auto` and `native`: an engine of this package alone
contestants starts each of them, and the service, and makes them work
runners     the service on each of several runners, and how it is measured where it drains at intervals
load        the load generator: fills queues, waits for results
rounds      who is measured when
summary     medians, ratios, table
formats     the workload that compares every model format
plot        the same as a picture
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and gives the exit code; imports late, since the contestants' programs live here too."""
    from beam_serving.cli.commands.bench.command import run

    return run(arguments)
