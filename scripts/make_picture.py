"""Make the picture of the README from the page of the demonstration.

    python -m scripts.make_picture [PAGE] [PICTURE]

`make picture` runs the demonstration where it has not been run, and this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from scripts.browser import Browser, find_browser

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "demo-output" / "results" / "report.html"
PICTURE: Final = ROOT / "docs" / "images" / "report.png"

WIDTH: Final = 1200
MAX_HEIGHT: Final = 1500
"""Pixels; a README is no place for more. The picture ends below the last card that fits."""

_CARDS: Final = "[...document.querySelectorAll('.card')].map(e => e.getBoundingClientRect().bottom)"


def make_picture(page: Path, picture: Path) -> None:
    """Write what the top of a page looks like.

    Parameters
    ----------
    page
        A report.
    picture
        PNG to write.
    """
    executable = find_browser()
    if executable is None:
        sys.exit("Chromium is not installed: install the package chromium")
    if not page.is_file():
        sys.exit(f"there is no page {page}: run `make demo`")
    with Browser(executable) as browser:
        browser.show(page, WIDTH)
        ends = [int(bottom) + 24 for bottom in browser.value(_CARDS)]
        height = max((end for end in ends if end <= MAX_HEIGHT), default=MAX_HEIGHT)
        picture.parent.mkdir(parents=True, exist_ok=True)
        browser.picture(picture, height=height)


if __name__ == "__main__":
    page, picture = (*map(Path, sys.argv[1:3]), *(PAGE, PICTURE)[len(sys.argv) - 1 :])
    make_picture(page, picture)
