"""What is log p(x), and how far off may it be?"""
