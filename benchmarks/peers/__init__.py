"""Each file is one way to train the same model: `passes(x, batch_size, particles)` makes what a slot is timed by.

What it returns takes a number of passes over the data, runs them, in a new order each, and returns the seconds.
"""
