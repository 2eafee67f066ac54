"""A shell that completes the command, asked as it asks itself."""

import shutil
import subprocess

import pytest

from ppvae import cli
from ppvae.commands import COMMANDS, completion
from ppvae.models import priors

ASK = """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_ppvae
echo "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script():
    """What `ppvae --print_shtab` prints, by shell."""
    pytest.importorskip("shtab")
    return {shell: completion.script(shell) for shell in cli.SHELLS}


def completed(script, *words):
    """What bash offers for the last of some words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    done = subprocess.run([bash, "-c", script + ASK, "ask", *words], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ppvae", ""], set(COMMANDS)),
        (["ppvae", "eval"], {"evaluate"}),
        (["ppvae", "fit", "--prior", ""], set(priors.__all__)),
        (["ppvae", "fit", "--prior.help", "Vamp"], {"VampPrior"}),
        (["ppvae", "fit", "--prior", "Laplace", "--network.hid"], {"--network.hidden"}),
        (["ppvae", "fit", "--objective", "iw"], {"iwae"}),
        (["ppvae", "fit", "--binarisation", ""], {"none", "threshold", "static", "dynamic"}),
        (["ppvae", "evaluate", "RUN", "--method", "ann"], {"annealed"}),
        (["ppvae", "compare", "--lineup", "pri"], {"priors"}),
    ],
)
def test_a_shell_completes_commands_options_and_names(script, words, offered):
    assert completed(script["bash"], *words) == offered


def test_the_other_shell_knows_the_same_names(script):
    assert all(name in script["zsh"] for name in (*COMMANDS, *priors.__all__, "--network.hidden", "annealed"))
    assert script["zsh"].startswith("#compdef ppvae")
    assert "--prior.truncation[of LARS" in script["zsh"]
    assert "torch." not in script["zsh"] + script["bash"]


def test_the_command_prints_it(script, capsys):
    assert cli.main(["--print_shtab", "zsh"]) == 0
    assert capsys.readouterr().out.strip() == script["zsh"].strip()


def test_without_shtab_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr("ppvae.commands.completion.find_spec", lambda name: None)
    assert cli.main(["--print_shtab", "bash"]) == 2
    assert capsys.readouterr().err == "ppvae: error: completion needs shtab: pip install 'ppvae[completion]'\n"


def test_another_shell_is_answered_with_those_there_are(capsys):
    assert cli.main(["--print_shtab", "fish"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in ("fish", "bash", "zsh"))
