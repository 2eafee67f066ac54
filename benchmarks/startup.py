"""`make bench`: how long it takes until something can be done, of a process of its own each, several times in turn."""

import subprocess
import sys
import time
from statistics import median

LINES = {
    "import torch, pyro": ["-c", "import torch, pyro"],
    "import ppvae, with fit and models in use": ["-c", "import ppvae; ppvae.fit; ppvae.models.VAE"],
    "ppvae --help": ["-m", "ppvae", "--help"],
    "ppvae --version": ["-m", "ppvae", "--version"],
}
ROUNDS = 7


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in LINES}
    for _ in range(ROUNDS + 1):
        for name, words in LINES.items():
            times[name].append(seconds(words))
    base = times["import torch, pyro"][1:]  # the first of each warms the disk
    print("\n| start | seconds | of `import torch, pyro` | wanted |\n|---|---|---|---|")
    for name, found in times.items():
        ratio = median(one / other for one, other in zip(found[1:], base, strict=True))
        wanted = {"import ppvae, with fit and models in use": "at most 1.15x"}.get(name, "")
        print(f"| {name} | {median(found[1:]):.2f} | {ratio:.2f}x | {'under 1 s' if '--' in name else wanted} |")


if __name__ == "__main__":
    main()
