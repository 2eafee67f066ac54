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
        *bias, left, right = node.args
        with module.graph.inserting_before(node):
            weight = module.graph.call_function(aten.t.default, (right,))
            product = module.graph.call_function(_linear(), (left, weight, bias[0] if bias else None, "none", [], ""))
        weight.meta["val"], product.meta["val"] = right.meta["val"].t(), node.meta["val"]
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
