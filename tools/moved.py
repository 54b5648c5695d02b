"""Old names of tools, kept for one release: a file here that runs the one of the same name in a folder below."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path


def run(old: str) -> None:
    """Say the new place of a tool on stderr, and run it there."""
    folder = Path(old).resolve().parent
    new, = folder.glob(f'*/{Path(old).name}')
    print(f'{Path(old).name} has moved to tools/{new.relative_to(folder)}; this name goes with the next release',
          file=sys.stderr)
    sys.argv[0] = str(new)
    sys.path[0] = str(new.parent)  # where it finds its neighbours
    runpy.run_path(str(new), run_name='__main__')
