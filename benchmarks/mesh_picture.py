"""Make docs/mesh.jpg: a photo turning into a mesh, as the page of `-f html` shows it.

    python benchmarks/mesh_picture.py [PHOTO] [--out docs/mesh.jpg]

Needs Chromium and playwright (`pip install playwright; apt-get install chromium`); WebGL is computed in software. The
first view is the photo; the second is turned by keys; the third, turned as well, has the colours of depth.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--force-color-profile=srgb")
TURN = ["ArrowRight"] * 4 + ["ArrowDown"] * 3 + ["-"]
VIEWS = (["r"], TURN, [*TURN, "3"])
HEIGHT = 400


def views(page_file: Path, width: int) -> list[Image.Image]:
    """Return one picture for each of VIEWS, (width, HEIGHT) pixels."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    shots = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=list(FLAGS))
        for keys in VIEWS:
            page = browser.new_page(
                viewport={"width": width, "height": HEIGHT}, device_scale_factor=2, reduced_motion="reduce"
            )
            page.goto(page_file.as_uri())
            page.evaluate("for (const one of document.querySelectorAll('header, footer')) one.style.display = 'none'")
            page.wait_for_timeout(1500)
            for key in keys:
                page.keyboard.press(key)
            page.wait_for_timeout(500)
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            shots.append(shot.resize((width, HEIGHT), Image.Resampling.LANCZOS))
        browser.close()
    return shots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=ROOT / "input_images/coffee.jpg")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/mesh.jpg")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder) / "page.html"
        command = (str(arguments.photo), "-o", str(page_file), "--encoder", "tiny", "--quiet")
        subprocess.run([sys.executable, "-m", "depthcli", "image", *command], check=True, cwd=ROOT)
        with Image.open(arguments.photo) as photo:
            width = round(HEIGHT * photo.width / photo.height)
        shots = views(page_file, width)
    row = Image.new("RGB", (len(shots) * width, HEIGHT))
    for number, shot in enumerate(shots):
        row.paste(shot, (number * width, 0))
    row.thumbnail((1500, HEIGHT), Image.Resampling.LANCZOS)
    row.save(arguments.out, quality=85, optimize=True)
    print(f"{arguments.out} {row.width}x{row.height} {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
