"""Make the pictures of the pages that teach: runs a page's own examples, and keeps what they save.

``python docs/figures.py`` writes ``docs/images/PAGE/*.png`` for each page, or for those that are named.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGES = ("understanding", "recommendations")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main(pages: list[str]) -> None:
    """Run each page in a folder of its own and copy its pictures to ``docs/images``."""
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            namespace: dict[str, Any] = {"__name__": "__main__"}
            for block in BLOCK.findall((DOCS / f"{page}.md").read_text()):
                exec(compile(block, page, "exec"), namespace)
            images = DOCS / "images" / page
            images.mkdir(parents=True, exist_ok=True)
            for picture in sorted(Path(folder).glob("*.png")):
                shutil.copy(picture, images)
            os.chdir(DOCS)


if __name__ == "__main__":
    main(sys.argv[1:] or list(PAGES))
