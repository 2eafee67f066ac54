"""The commands of `ppvae`: each file has the options of one, and what it does."""
