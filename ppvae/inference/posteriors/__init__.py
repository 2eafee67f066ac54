"""What is p(z | x)?"""
