"""Blocks entry by entry, as tests look at them."""

from collections.abc import Iterable

from beam_serving.records import Block, Entry


def entries_of(blocks: Iterable[Block]) -> list[Entry]:
    """Gives the entries of blocks."""
    return [entry for block in blocks for entry in block.entries(range(len(block.ids)))]
