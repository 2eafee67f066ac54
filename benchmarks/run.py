"""`make bench`: every peer's training steps a second, side by side, with the ratios that the package promises.

Each peer lives in a process of its own. A slot is one peer's turn, a pass over the data; the peers take turns, in a new
order every round, so that what else the machine does falls on all of them. Ratios are of the medians over slots.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HERE = Path(__file__).parent
SETTLED = 25  # steps after which `fit` has chosen its way, and compiled
OTHER = HERE / ".venv" / "bin" / "python"
PEERS = {  # file, its name in the table, and whether it lives in the peers' own environment
    "ours": ("ppvae fit", False),
    "ours_eager": ("ppvae fit, never compiled", False),
    "by_hand": ("PyTorch by hand, torch.compile, fused Adam", False),
    "by_hand_eager": ("PyTorch by hand, eager", False),
    "pyro_svi": ("Pyro's VAE example (SVI)", False),
    "pythae_trainer": ("pythae's trainer", True),
    "numpyro_loop": ("NumPyro, jitted fori_loop", True),
    "products": ("the matrix products alone", False),
}


class Setting(NamedTuple):
    """One table: a problem, who competes, and what `ppvae fit` should reach against whom."""

    title: str
    batch_size: int
    particles: int
    steps: int  # in a pass: one slot
    peers: tuple[str, ...]
    wanted: dict[str, float]


SINGLE = {"by_hand": 1.0, "pyro_svi": 2.3, "pythae_trainer": 2.2, "numpyro_loop": 0.95}
SETTINGS = (
    Setting("ELBO, batch 128", 128, 1, 100, tuple(PEERS), SINGLE),
    Setting("ELBO, batch 256", 256, 1, 60, tuple(PEERS), SINGLE),
    Setting(
        "IWAE, K = 50, batch 128",
        128,
        50,
        5,
        ("ours", "ours_eager", "by_hand", "pyro_svi", "products"),
        {"pyro_svi": 1.2},
    ),
)


class Peer:
    """A process that runs one peer on demand."""

    def __init__(self, name: str, setting: Setting, root: str | None):
        label, elsewhere = PEERS[name]
        self.name, self.label, self.rates = name, label, list[float]()
        self.absent: str | None = None
        self.versions: dict[str, str] = {}
        self.setting = setting
        python = OTHER if elsewhere else Path(sys.executable)
        if not python.exists():
            self.absent = f"no {python}: make bench sets it up"
            return
        words = [python, HERE / "worker.py", name, "--batch_size", setting.batch_size, "--steps", setting.steps]
        words += ["--particles", setting.particles, *(["--root", root] if root else [])]
        pipe = subprocess.PIPE
        self.errors = (Path(os.environ.get("TMPDIR", "/tmp")) / f"bench-{os.getpid()}-{name}.log").open("w+")
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=pipe, stdout=pipe, stderr=self.errors, text=True
        )
        answer = self._read()
        self.absent = answer.get("absent")
        self.versions = answer.get("versions", {})

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if line:
            return dict(json.loads(line))
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        return {"absent": f"it failed: {said[-1] if said else 'no word'}"}

    def seconds(self, passes: int) -> float | None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{passes}\n")
        self.process.stdin.flush()
        answer = self._read()
        self.absent = answer.get("absent")
        return answer.get("seconds")

    def slot(self, passes: int) -> None:
        if (seconds := self.seconds(passes)) is not None:
            self.rates.append(passes * self.setting.steps / seconds)

    def close(self) -> None:
        if hasattr(self, "process"):
            self.process.terminate()
            self.process.wait()
            self.errors.close()
            Path(self.errors.name).unlink()


def measure(setting: Setting, rounds: int, warm_up: float, root: str | None) -> dict[str, Any]:
    """Steps a second of every peer, slot by slot."""
    print(f"\n{setting.title}", flush=True)
    peers = [Peer(name, setting, root) for name in setting.peers]
    try:
        for peer in peers:  # compilation, and for `fit` the choice to compile, are over before the first slot
            start, steps = time.perf_counter(), 0
            while peer.absent is None and (steps < SETTLED or time.perf_counter() - start < warm_up):
                peer.seconds(1)
                steps += setting.steps
        turns = random.Random(0)
        for _ in range(rounds):
            for peer in turns.sample(peers, len(peers)):
                if peer.absent is None:
                    peer.slot(1)
    finally:
        for peer in peers:
            peer.close()
    return {
        "title": setting.title,
        "batch_size": setting.batch_size,
        "particles": setting.particles,
        "wanted": setting.wanted,
        "peers": {
            peer.name: {"label": peer.label, "rates": peer.rates, "absent": peer.absent, "versions": peer.versions}
            for peer in peers
        },
    }


def table(result: dict[str, Any]) -> list[str]:
    """A setting as lines of Markdown."""
    ours = result["peers"]["ours"]["rates"]
    lines = [
        f"| {result['title']} | steps/s: median | min | max | ppvae fit is | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for name, peer in result["peers"].items():
        rates = peer["rates"]
        if not rates:
            lines.append(f"| {peer['label']} | absent: {peer['absent']} | | | | |")
            continue
        ratio = "" if name == "ours" or not ours else f"{median(ours) / median(rates):.2f}x"
        wanted = f"{result['wanted'][name]:.2f}x" if name in result["wanted"] else ""
        lines.append(
            f"| {peer['label']} | {median(rates):.1f} | {min(rates):.1f} | {max(rates):.1f} | {ratio} | {wanted} |"
        )
    return lines


def machine() -> dict[str, str]:
    """What the figures hang on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return {
        "date": date.today().isoformat(),
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Every slot as a point, the medians as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(results), 1, figsize=(8, 2.6 * len(results)), layout="constrained", squeeze=False)
    for axis, result in zip(axes[:, 0], results, strict=True):
        shown = [peer for peer in result["peers"].values() if peer["rates"]][::-1]
        for place, peer in enumerate(shown):
            ours = peer["label"] == PEERS["ours"][0]
            axis.barh(place, median(peer["rates"]), color="#3b6fb6" if ours else "#c9ced6")
            axis.plot(peer["rates"], [place] * len(peer["rates"]), "k|", alpha=0.5)
        axis.set_yticks(range(len(shown)), [peer["label"] for peer in shown])
        axis.set_title(f"{result['title']}: steps a second", loc="left", fontsize=10)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="slots of every peer")
    parser.add_argument("--warm_up", type=float, default=6.0, help="seconds of every peer before its first slot")
    parser.add_argument("--root", default=None, help="a folder that holds MNIST; made-up digits without it")
    parser.add_argument("--only", type=int, default=None, help="one setting by its number, from 0")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON and the plot go")
    options = parser.parse_args()
    about = machine() | {"data": "MNIST above a half" if options.root else "made-up binary digits"}
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    chosen = SETTINGS if options.only is None else (SETTINGS[options.only],)
    results = []
    for setting in chosen:
        results.append(measure(setting, options.rounds, options.warm_up, options.root))
        print("\n".join(table(results[-1])), flush=True)
    for result in results:
        for peer in result["peers"].values():
            about |= peer["versions"]
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()))
    options.out.mkdir(exist_ok=True)
    (options.out / "steps.json").write_text(json.dumps({"about": about, "results": results}, indent=1))
    plot(results, options.out / "steps.png")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
