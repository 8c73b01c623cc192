"""The Lua scripts that run inside Redis: what must happen at once or not at all.

A script is atomic as MULTI/EXEC is, and can decide by what it reads: a result is written only for whoever still owns
the entry. Each says in its file what its keys and arguments are.
"""

from beam_serving.transport.lua import script


def _script(name: str, without: str = "") -> str:
    return script(__name__, name, without)


ENSURE_GROUP = _script("ensure_group")
KEEP_LEASE = _script("keep_lease")
CLAIM = _script("claim")
CLAIM_ABANDONED = _script("claim_abandoned")
TAKE_BACK = _script("take_back")
REAP_CONSUMERS = _script("reap_consumers")
RELEASE_CONSUMER = _script("release_consumer")
COMMIT = _script("commit", without="keep_outbox_record")
COMMIT_AND_KEEP = _script("commit")
"""COMMIT that also appends each result to the outbox, from which they are written to files (`io/outbox.py`)."""
COMMIT_RANKED = _script("commit_ranked")
DEAD_LETTERS = _script("dead_letters")
RETRY_DEAD_LETTER = _script("retry_dead_letter")
FORGET_OUTBOX_RECORDS = _script("forget_outbox_records")
KEEP_LOCK = _script("keep_lock")
TAKE_LOCK = _script("take_lock")
RELEASE_LOCK = _script("release_lock")
OWN = _script("own")
DISOWN = _script("disown")
