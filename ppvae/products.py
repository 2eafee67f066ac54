"""Matrix products of a graph by oneDNN where torch would call its BLAS, which is slower on much of today's hardware."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
LEAST = 10_000_000  # multiplications of a product: below it what is around the arithmetic decides


def by_onednn(module: fx.GraphModule) -> bool:
    """Replace the larger products of a graph, in place; whether there were any.

    oneDNN compiles its kernels for the processor that it finds, a BLAS chooses among those it came with. Products of a
    transposed left side, as the gradients of weights are, stay: there oneDNN copies first.
    """
    if not _quicker():
        return False
    chosen = [node for node in module.graph.nodes if _fits(node)]
    for node in chosen:
        with module.graph.inserting_before(node):
            product = _product(module.graph, node)
        node.replace_all_uses_with(product)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return bool(chosen)


@contextmanager
def called_as_it_is() -> Iterator[None]:
    """Inductor calls the operator by its name: the rule that it has for it is of weights that are constants."""
    from torch._inductor import lowering
    from torch._inductor.fx_passes.mkldnn_fusion import _mkldnn_fusion_init

    _mkldnn_fusion_init()  # else its rule would come later
    rules, operator = lowering.lowerings, _linear()
    before = rules.get(operator)
    rules[operator] = lowering.fallback_handler(operator, add_to_fallback_set=False)
    try:
        yield
    finally:
        rules.pop(operator)
        if before is not None:
            rules[operator] = before


def _product(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """A product as oneDNN's, of a weight `(columns, inner)`; from the other side, where it is the weight's only one.

    It is the left side whose rows the cores share out. A weight that lies there is read by the cores that wrote its
    rows when it last moved, and stays in their caches: no line has to be fetched from another core, nor taken from it
    when the weight moves again. With a second product, for the gradient of the input, each core reads all of it anyway.
    """

    def call(target: Any, *arguments: Any) -> fx.Node:
        made = graph.call_function(target, arguments)
        values = fx.node.map_arg(arguments, lambda argument: argument.meta["val"])
        made.meta["val"] = target(*values)
        return made

    *bias, left, right = node.args
    weight = call(aten.t.default, right)
    columns, rows = weight.meta["val"].shape[0], left.meta["val"].shape[0]  # type: ignore[union-attr]
    if not weight.meta["val"].is_contiguous() or rows > columns or _products_of(right) > 1:
        return call(_linear(), left, weight, bias[0] if bias else None, "none", [], "")
    product = call(aten.t.default, call(_linear(), weight, left, None, "none", [], ""))
    return call(aten.add.Tensor, product, bias[0]) if bias else product


def _products_of(weight: Any) -> int:
    """How many products have a tensor on a side, transposed or not."""
    while weight.target is aten.t.default:
        weight = weight.args[0]
    seen = [weight]
    for node in seen:
        seen += [user for user in node.users if user.target is aten.t.default]
    return sum(user.target in (aten.mm.default, aten.addmm.default, _linear()) for node in seen for user in node.users)


def _linear() -> Any:
    return torch.ops.mkldnn._linear_pointwise.default


def _quicker() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _fits(node: fx.Node) -> bool:
    if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
        return False
    *bias, left, right = (argument.meta["val"] for argument in node.args)  # type: ignore[union-attr]
    (rows, inner), columns = left.shape, right.shape[1]
    return (
        left.device.type == "cpu"
        and left.dtype == torch.float32
        and rows * inner * columns >= LEAST
        and left.is_contiguous()
        and (right.is_contiguous() or right.t().is_contiguous())
        and all(part.shape == (columns,) and part.is_contiguous() for part in bias)
    )
