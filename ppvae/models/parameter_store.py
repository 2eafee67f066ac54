"""How a story's parameters become known to Pyro's own optimisers."""

from itertools import count
from weakref import WeakKeyDictionary

import pyro
from pyro.params import param_with_module_name
from torch import nn

_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
_numbers = count()


def register(story: nn.Module) -> None:
    """Name every trainable parameter of `story` to Pyro. Call it first in a model and first in a guide.

    `pyro.infer.SVI` optimises what it finds in Pyro's parameter store, and silently nothing else. Each object gets a
    name of its own, also a deep copy and also one made where a dead one lay in memory, so two stories in one process
    never share parameters; a part swapped after a fit is taken up too. This is `pyro.module` without its warning about
    parameters that are frozen on purpose, and without its stale copies.
    """
    if story not in _names:
        _names[story] = f"{type(story).__name__}-{next(_numbers)}"
    store = pyro.get_param_store()
    for name, parameter in story.named_parameters():
        if parameter.requires_grad:
            full_name = param_with_module_name(_names[story], name)
            if pyro.param(full_name, parameter) is not parameter:
                del store[full_name]
                pyro.param(full_name, parameter)
