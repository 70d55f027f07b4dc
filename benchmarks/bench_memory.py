"""Peak memory of ``pixelkin label`` on 50 and on 1,000 images, each in a process of its own. The claim: within 10 %.

python benchmarks/bench_memory.py [--method components] [--counts 50 1000] [--size 500 375]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pixelkin.data.synthetic import render_scene

MEASURED = """
import resource, sys
from pixelkin.cli import run
code = run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Scenes of touching objects; ten different ones, repeated."""
    for kind in ("images", "semantic"):
        (folder / kind).mkdir(parents=True)
    scenes = [render_scene(seed, size=size, objects=12) for seed in range(10)]
    for i in range(count):
        scene = scenes[i % len(scenes)]
        Image.fromarray(scene.image).save(folder / "images" / f"{i:05d}.jpg")
        Image.fromarray(scene.semantic.astype(np.uint8)).save(folder / "semantic" / f"{i:05d}.png")


def peak_mib(arguments: list[str]) -> float:
    """Peak resident memory of one command, in MiB (Linux counts in KiB, macOS in bytes)."""
    call = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env={**os.environ, "PIXELKIN_QUIET": "1"})
    return int(done.stdout.splitlines()[-1]) / (1024**2 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="components")
    parser.add_argument("--budget", default="20it")
    parser.add_argument("--counts", nargs="+", type=int, default=[50, 1000])
    parser.add_argument("--size", nargs=2, type=int, default=[500, 375], metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    width, height = options.size
    print(f"{options.method}, {width}x{height}\n{'images':>8} {'peak MiB':>9} {'ratio':>6} {'s/image':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "fit", 10, (height, width))
        arguments = ["--method", options.method, "--budget", options.budget, "--out", str(root / "model")]
        peak_mib(["fit", str(root / "fit" / "images"), "--semantic", str(root / "fit" / "semantic"), *arguments])
        first = 0.0
        for count in options.counts:
            data = root / str(count)
            write_images(data, count, (height, width))
            started = time.perf_counter()
            arguments = ["--model", str(root / "model"), "--out", str(data / "run")]
            peak = peak_mib(["label", str(data / "images"), "--semantic", str(data / "semantic"), *arguments])
            first = first or peak
            print(f"{count:>8} {peak:>9.1f} {peak / first:>6.3f} {(time.perf_counter() - started) / count:>8.3f}")


if __name__ == "__main__":
    main()
