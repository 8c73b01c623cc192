"""The rules for users of Redis as docs/redis.md gives them."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/redis.md"


def rules(user: str, password: str, stream: str = "serving_stream", name: str = "digits") -> list[str]:
    """Gives the rules of a user on the page, for another stream and service where these are named."""
    (block,) = re.findall(
        rf"^ +ACL SETUSER {user} on >\.\.\. (.*(?:\n {{10}}.*)*)", PAGE.read_text(encoding="utf-8"), re.M
    )
    text = " ".join(block.split()).replace("serving_stream", stream).replace(":digits:", f":{name}:")
    return ["reset", "on", f">{password}", *re.findall(r"\([^)]*\)|\S+", text)]
