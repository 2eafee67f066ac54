"""NumPyro: `SVI.update` in a `fori_loop` over an epoch, jitted, as in its VAE example."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO
from problem import HIDDEN, LATENT, LEARNING_RATE, PIXELS


def dense(key: Any, inputs: int, outputs: int) -> tuple[Any, Any]:
    bound = inputs**-0.5
    w, b = random.split(key)
    return random.uniform(w, (inputs, outputs), minval=-bound, maxval=bound), random.uniform(
        b, (outputs,), minval=-bound, maxval=bound
    )


def mlp(weights: Any, x: Any) -> Any:
    (w1, b1), (w2, b2) = weights
    return jax.nn.relu(x @ w1 + b1) @ w2 + b2


def initial(key: Any, *sizes: int) -> Any:
    keys = random.split(key, len(sizes) - 1)
    return [dense(k, a, b) for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]


def model(x: Any) -> None:
    weights = numpyro.param("decoder", lambda key: initial(key, LATENT, HIDDEN, PIXELS))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=mlp(weights, z)).to_event(1), obs=x)


def guide(x: Any) -> None:
    weights = numpyro.param("encoder", lambda key: initial(key, PIXELS, HIDDEN, 2 * LATENT))
    loc, log_scale = jnp.split(mlp(weights, x), 2, axis=-1)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))


def passes(x: np.ndarray, batch_size: int, particles: int) -> Callable[[int], float]:
    data, steps = jnp.asarray(x), len(x) // batch_size
    elbo = Trace_ELBO() if particles == 1 else RenyiELBO(alpha=0.0, num_particles=particles)
    svi = SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), elbo)
    state = svi.init(random.PRNGKey(0), data[:batch_size])
    key = random.PRNGKey(1)

    @jax.jit
    def epoch(state: Any, order: Any) -> Any:
        def body(i: Any, carry: Any) -> Any:
            state, total = carry
            rows = lax.dynamic_slice_in_dim(order, i * batch_size, batch_size)
            state, loss = svi.update(state, data[rows])
            return state, total + loss

        return lax.fori_loop(0, steps, body, (state, 0.0))

    def run(count: int) -> float:
        nonlocal state, key
        start = time.perf_counter()
        for _ in range(count):
            key, now = random.split(key)
            state, total = epoch(state, random.permutation(now, len(data)))
            float(total)
        return time.perf_counter() - start

    return run


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("numpyro", "jax")}
