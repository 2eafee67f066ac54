"""How good is a way of inference?"""
