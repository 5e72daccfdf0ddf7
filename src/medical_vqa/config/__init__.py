"""Recipes: everything that defines a training run, read from YAML or Python, with every mistake reported at once."""

from medical_vqa.config.reading import find_recipe as find_recipe
from medical_vqa.config.reading import load_recipe as load_recipe
from medical_vqa.config.reading import override_recipe as override_recipe
from medical_vqa.config.reading import parse_recipe as parse_recipe
from medical_vqa.config.reading import where_split as where_split
from medical_vqa.config.recipe import ModelOptions as ModelOptions
from medical_vqa.config.recipe import Recipe as Recipe
from medical_vqa.config.recipe import Section as Section
