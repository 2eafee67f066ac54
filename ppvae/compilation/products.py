"""Matrix products of a graph by oneDNN, where torch would call its BLAS, and each core on its own rows of a weight."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
LEAST = 10_000_000  # multiplications of a product: below it what is around the arithmetic decides
ROWS = 128  # of a weight for every core, at the least


def by_onednn(module: fx.GraphModule) -> bool:
    """Replace the larger products of a graph, in place; whether there were any.

    oneDNN compiles its kernels for the processor that it finds, a BLAS chooses among those it came with.

    A weight `(out, in)` with as many rows as the batch or more is the left side of its products, for it is the left
    side whose rows the cores share out. So a core reads, in all products of a step, the rows that it wrote when the
    weight last moved: they stay in its cache, and none has to be fetched from another core, nor taken from it later.

    - outputs: `(weight @ inputs.T).T`, laid row by row again
    - the weight's gradient: `slopes.T @ inputs`, of slopes that lie column by column
    - the inputs' gradient: `slopes @ weight`, a sum over the weight's rows: each core sums its own, then all are added

    Products of a transposed left side otherwise stay: there oneDNN copies first.
    """
    if not _quicker():
        return False
    graph = module.graph
    chosen = [node for node in graph.nodes if _fits(node)]
    for slopes in dict.fromkeys(node.args[0].args[0] for node in chosen if _is_weights(node)):
        _turn(graph, slopes)
    for node in chosen:
        with graph.inserting_before(node):
            product = _product(graph, node)
        node.replace_all_uses_with(product)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()
    return bool(chosen)


@contextmanager
def called_as_it_is() -> Iterator[None]:
    """Inductor calls the operators by their names: the rules that it has for them are of weights that are constants."""
    from torch._inductor import lowering
    from torch._inductor.fx_passes.mkldnn_fusion import _mkldnn_fusion_init

    _mkldnn_fusion_init()  # else its rules would come later
    rules, fused = lowering.lowerings, torch.ops.mkldnn._linear_pointwise.binary
    product = lowering.fallback_handler(_linear(), add_to_fallback_set=False)

    def with_another(left: Any, other: Any, right: Any, bias: Any, name: str) -> Any:
        """A product and what is added to it or taken from it: two again."""
        return rules[getattr(aten, name)](product(left, right, bias, "none", [], ""), other)

    before = {operator: rules[operator] for operator in (_linear(), fused) if operator in rules}
    rules |= {_linear(): product, fused: with_another}
    try:
        yield
    finally:
        for operator in (_linear(), fused):
            rules.pop(operator)
        rules.update(before)


def _turn(graph: fx.Graph, slopes: fx.Node) -> None:
    """Let slopes `(n, out)` lie column by column, for their products and sums, in the memory of who computes them."""
    with graph.inserting_after(slopes):
        turned = _call(graph, _laid(), slopes, [1, slopes.meta["val"].shape[0]])
    for user in list(slopes.users):
        of_product = user.target is aten.t.default and all(node.target is aten.mm.default for node in user.users)
        if of_product or user.target is aten.sum.dim_IntList:
            user.replace_input_with(slopes, turned)


def _product(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What stands for a product that was chosen."""

    def call(target: Any, *arguments: Any) -> fx.Node:
        return _call(graph, target, *arguments)

    def linear(left: Any, right: Any, *bias: Any) -> fx.Node:
        return call(_linear(), left, right, *(bias or (None,)), "none", [], "")

    left: Any
    right: Any
    *bias, left, right = node.args
    across = call(aten.t.default, right)
    (rows, inner), columns = left.meta["val"].shape, across.meta["val"].shape[0]
    if across.meta["val"].is_contiguous() and _shared(rows, columns):
        product = call(aten.t.default, linear(across, left))
        product = call(aten.add.Tensor, product, *bias) if bias else product
        return call(_laid(), product, [columns, 1])  # as it was: what follows may go through memory in its order
    turned = next((user for user in left.users if user.target is _laid()), None)
    if turned is not None and right.meta["val"].is_contiguous() and not bias:
        cores = torch.get_num_threads()
        own = call(aten.view.default, call(aten.t.default, turned), [cores, inner // cores, rows])
        weight = call(aten.view.default, right, [cores, inner // cores, columns])
        return call(aten.sum.dim_IntList, call(aten.bmm.default, call(aten.transpose.int, own, 1, 2), weight), [0])
    return linear(left, across, *bias)


def _call(graph: fx.Graph, target: Any, *arguments: Any) -> fx.Node:
    made = graph.call_function(target, arguments)
    made.meta["val"] = target(*fx.node.map_arg(arguments, lambda argument: argument.meta["val"]))
    return made


def _shared(rows: int, columns: int) -> bool:
    """Whether cores share out the rows of a weight `(columns, ...)` evenly, for a batch of some rows."""
    cores = torch.get_num_threads()
    return cores > 1 and columns % cores == 0 and columns >= max(rows, ROWS * cores)


def _is_weights(node: fx.Node) -> bool:
    """Whether a product is a weight's gradient, of transposed slopes, with the weight's rows on the cores."""
    left: Any = node.args[0]
    return (
        node.target is aten.mm.default
        and left.target is aten.t.default
        and left.args[0].meta["val"].is_contiguous()
        and _shared(*left.args[0].meta["val"].shape)
    )


def _linear() -> Any:
    return torch.ops.mkldnn._linear_pointwise.default


def _laid() -> Any:
    """A tensor with given strides."""
    from torch._inductor import inductor_prims

    return inductor_prims.force_stride_order


def _quicker() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _fits(node: fx.Node) -> bool:
    if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
        return False
    given: Any = node.args
    *bias, left, right = (argument.meta["val"] for argument in given)
    (rows, inner), columns = left.shape, right.shape[1]
    return (
        left.device.type == "cpu"
        and left.dtype == torch.float32
        and rows * inner * columns >= LEAST
        and (right.is_contiguous() or right.t().is_contiguous())
        and all(part.shape == (columns,) and part.is_contiguous() for part in bias)
        and (left.is_contiguous() or (_is_weights(node) and right.is_contiguous()))
    )
