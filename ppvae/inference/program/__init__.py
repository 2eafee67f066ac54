"""How any pair of Pyro programs is run, replayed and weighed."""
