"""A step of a fit, or a block of an estimate, by the way that ends first: ordinary Python, a replayed graph, compiled.

From the top: `steps` chooses the way; `compiled` keeps the graphs of a loss; `tracing` makes one of any story;
`checking` holds it against Python, by the `differences` between them; `update` and `adam` are what follows its
gradients, `products` who makes its matrix products, `tiles` which of Inductor's loops are not to be trusted, and
`cache` where it keeps its kernels.
"""
