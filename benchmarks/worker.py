"""One peer in a process of its own: it reads a number of passes, runs them, and prints the seconds they took."""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
PROTOCOL = os.fdopen(os.dup(1), "w", buffering=1)  # what a peer prints itself goes to standard error
os.dup2(2, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="in one pass over the data")
    parser.add_argument("--particles", type=int, default=1)
    parser.add_argument("--root", default=None)
    options = parser.parse_args()
    from problem import digits

    try:
        peer = importlib.import_module(f"peers.{options.peer}")
        x = digits(options.batch_size * options.steps, options.root)
        passes = peer.passes(x, options.batch_size, options.particles)
        PROTOCOL.write(json.dumps({"versions": peer.versions()}) + "\n")
    except ImportError as absent:
        PROTOCOL.write(json.dumps({"absent": str(absent)}) + "\n")
        return
    for line in sys.stdin:
        PROTOCOL.write(json.dumps({"seconds": passes(int(line))}) + "\n")


if __name__ == "__main__":
    main()
