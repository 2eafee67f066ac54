"""How a story is fitted, stopped and taken up again."""
