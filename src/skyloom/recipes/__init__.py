"""Recipes: each reads like the method section of a paper and calls the operations one by one.

``recipes.registry`` knows which recipes exist; ``recipes.config`` turns a YAML file into a checked model.
"""
