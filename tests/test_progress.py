"""One bar on the terminal, whether one process works or several."""

import io
from queue import Queue

import pytest
from rich.console import Console

from ppvae import progress


class Told(Queue):
    """A queue between processes, within one."""

    def cancel_join_thread(self):
        pass


@pytest.fixture
def terminal(monkeypatch):
    shown = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "console", shown)
    return shown.file


@pytest.fixture
def parent(monkeypatch):
    monkeypatch.setattr(progress, "_parent", None)  # put back afterwards
    progress.tell(told := Told())
    return told


@pytest.mark.parametrize(("is_terminal", "show"), [(True, True), (True, False), (False, True)])
def test_a_bar_is_shown_on_a_terminal_alone_and_where_it_is_asked_for(monkeypatch, is_terminal, show):
    shown = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    monkeypatch.setattr(progress, "console", shown)
    assert list(progress.track(range(3), "counting", show=show)) == [0, 1, 2]
    assert ("counting" in shown.file.getvalue()) == (is_terminal and show)


def test_a_process_with_a_parent_tells_it_how_many_steps_there_are_and_are_done(terminal, parent):
    assert list(progress.track([5, 6, 7], "weighing")) == [5, 6, 7]
    assert list(progress.track((i for i in range(4)), "annealing", total=4)) == [0, 1, 2, 3]
    assert list(progress.track([1], "silent", show=False)) == [1]
    told = [parent.get() for _ in range(parent.qsize())]
    assert {name for name, *_ in told} == {"weighing", "annealing"}
    assert sum(total for _, total, _ in told) == sum(steps for *_, steps in told) == 7
    assert terminal.getvalue() == ""


def test_a_parent_shows_one_bar_of_what_several_processes_tell(terminal):
    told = Told()
    for message in (("weighing", 6, 0), ("weighing", 4, 0), ("weighing", 0, 6), ("weighing", 0, 4)):
        told.put(message)
    progress.follow(told, told.empty)
    assert "weighing" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
