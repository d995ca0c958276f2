"""python -m examples.pictures: README's pictures, of the pages that a demo and an ablation leave.

A headless Chromium draws the top of each page, without a network.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from shards.errors import UserError, run_command

PAGES = {"demo": Path("runs/demo/report.html"), "ablation": Path("runs/ablation/report.html")}
PICTURES = Path("docs/pictures")
SIZE = "1200,1000"


def draw(browser: str, page: Path, picture: Path) -> None:
    """Write the top of a page as PNG; UserError where the page is not there."""
    if not page.is_file():
        raise UserError(f"{page}: no page; run make demo, then make ablation")
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        nowhere = ("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}")
        drawn = (
            f"--window-size={SIZE}",
            f"--screenshot={picture.resolve()}",
            page.resolve().as_uri(),
        )
        subprocess.run([browser, *flags, *nowhere, *drawn], check=True, capture_output=True)


def main() -> None:
    """Draw all of them."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise UserError("no chromium; tests/install_tools.sh installs it where apt can")
    PICTURES.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        draw(browser, page, PICTURES / f"{name}.png")


if __name__ == "__main__":
    run_command(main)
