"""Tables in Markdown."""
from __future__ import annotations

from collections.abc import Collection, Iterable


def markdown_table(header: list[str], rows: Iterable[list[str]], text_columns: Collection[int] = (0, )) -> str:
    """A table, numbers to the right."""
    texts = {index % len(header) for index in text_columns}
    rule = ['---' if index in texts else '---:' for index in range(len(header))]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (header, rule, *rows)) + '\n'
