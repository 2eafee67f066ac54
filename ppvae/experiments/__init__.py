"""How a configuration becomes a fitted, stored, compared story."""
