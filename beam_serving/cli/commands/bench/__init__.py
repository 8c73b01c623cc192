"""`beam-serving bench`: how fast a service of your own answers, with its model and your inputs.

inputs      what is sent: files, or what the model takes
load        keeps requests in flight, or sends so many each second, and times each
figures     rates and percentiles, as table and as JSON
plot        the percentiles as a picture
machine     what it was measured on
command     the command line, and the course of a run
"""

from beam_serving.cli.commands.bench.command import main

__all__ = ["main"]
