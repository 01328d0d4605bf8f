"""Recipes: everything that decides a training, as plain data. The YAML files here come with the package."""

from keras_convmixer.recipes.recipe import Recipe, default_recipe, list_recipes
from keras_convmixer.recipes.sections import Augmentation, Data, Model, Optimizer, Training

__all__ = ["Augmentation", "Data", "Model", "Optimizer", "Recipe", "Training", "default_recipe", "list_recipes"]
