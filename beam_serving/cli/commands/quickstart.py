"""The quick start: a service with the bundled digits model, some images, their answers."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import yaml

from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.service import running_service
from beam_serving.cli.terminal import say
from beam_serving.client import InputQueue, OutputQueue
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import load_settings
from beam_serving.launch.embedded_redis import listens, private_redis

_DEMO = Path(__file__).parents[2] / "demo"
_ANSWER_S = 60.0


def main(arguments: Sequence[str]) -> int:
    """Run the quick start and return the exit code: 0 when every image was answered."""
    return run(_command, arguments, "beam-serving quickstart")


@with_examples("beam_serving quickstart my_digit.png --src localhost:6379")
@click.command(
    cls=Command,
    help="Serve the bundled digits model and classify images with it, some bundled ones where none is given. Starts a "
    "Redis when none is running.",
)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGE]...")
@click.option(
    "--src", default="localhost:6379", show_default=True, help="Redis to use or, where none listens, to start."
)
def _command(images: tuple[Path, ...], src: str) -> int:
    files = list(images) or sorted((_DEMO / "images").glob("*.png"))
    # A stream and a name of its own: it must not disturb a service that runs on the same Redis.
    name = f"quickstart-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beam-serving-")))
        config = _config(src, name)
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        at = redis_at(load_settings(folder / "config.yaml", environment={}))
        if at.route is None and at.host in ("localhost", "127.0.0.1") and not listens(at.host, at.port):
            say(f"no Redis listens at {at}: starting an embedded one", flush=True)
            stack.enter_context(private_redis(at.port))
        stack.callback(lambda: at.client().delete(name))
        stack.enter_context(running_service(config, folder, at))
        return _classify(src, name, files)


def _config(src: str, name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((_DEMO / "config.yaml").read_text(encoding="utf-8"))
    config["name"] = name
    config["model"] = {key: str(_DEMO / file) for key, file in config["model"].items()}
    config["data"] |= {"src": src, "streams": [name]}
    return config


def _classify(src: str, stream: str, images: Sequence[Path]) -> int:
    """Push the images and print the answers as they were always printed; return the exit code."""
    with InputQueue(src, stream=stream) as queue, OutputQueue(src, stream=stream) as results:
        for image in images:
            queue.enqueue_image(image.name, image)
        answers = results.query_many([image.name for image in images], timeout_s=_ANSWER_S, delete=True)
    for image in images:
        answer = answers.get(image.name)
        if isinstance(answer, dict):
            classes = "".join(f" class: {index}'s prob: {prob}" for index, prob in answer.items())
            say(f"image: {image.name}, classification-result:{classes}", flush=True)
        else:
            say(f"image: {image.name}, no result: {answer or 'none came in time'}", flush=True)
    return 0 if all(isinstance(answers.get(image.name), dict) for image in images) else 1
