"""Models that others publish in wheels of the package index, beside the programs that they publish with them.

models.py          which models, and what is changed in the recipe that `new_recipe.py` writes
author_answers.py  the author's own program, run on pictures in a process of its own
pictures.py        pictures of scikit-image and scikit-learn
comparison.py      classes, boxes and scores of both
"""
