"""What is imported when: help needs no torch, and a fit from Python no command line."""

import subprocess
import sys

HEAVY = ("torch._inductor", "torch._dynamo", "sklearn", "matplotlib", "torchvision", "jsonargparse", "scipy")


def imported(code, *modules):
    """Those of some modules that a process of its own holds once it has run a line."""
    line = f"{code}\nimport sys; print([name for name in {modules} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_help_needs_no_torch():
    assert imported("from ppvae.cli import main\nmain(['fti'])", "torch", "pyro", *HEAVY) == "[]"


def test_fit_and_models_need_nothing_heavy_beside_torch_and_pyro():
    assert imported("import ppvae; ppvae.fit; ppvae.models.VAE; ppvae.inference.importance", *HEAVY) == "[]"


def test_python_m_ppvae_is_the_command():
    done = subprocess.run([sys.executable, "-m", "ppvae", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ppvae ")
