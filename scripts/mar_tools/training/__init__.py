"""Pictures to a trained network with its recipe: a fine-tuning whose every picture is read as the server reads it.

running.py       from the folder to the recipe
records.py       what was asked for, and what came of it
folders.py       the pictures of each class, each read once
splitting.py     which train, which choose the epoch, which only judge the end
settings.py      what can be chosen
networks.py      the network to begin with
pictures.py      random changes, and the server's own preparation
classifiers.py   a step of a classifier, and its optimiser
fitting.py       the epochs, by PyTorch Lightning; goes on after any end
searching.py     several settings, tried by Optuna
curves.py        losses and figures, drawn
handing_over.py  weights, labels, pictures and the recipe
"""
