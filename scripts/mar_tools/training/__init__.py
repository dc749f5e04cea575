"""Pictures to a trained network with its recipe: a fine-tuning whose every picture is read as the server reads it.

running.py            from the folder to the recipe
courses.py            what is asked for, and what a task brings to a training
classifying.py        the course of a classifier
detecting.py          the course of a detector
records.py            what was asked for, and what came of it
interruptions.py      Ctrl+C and other ends, told in a line
folders.py            the pictures of each class, each read once
annotated.py          pictures with boxes, by COCO annotations
splitting.py          which train, which choose the epoch, which only judge the end
settings.py           what can be chosen
networks.py           the classifier to begin with
detector_networks.py  the detector to begin with, and its loss
pictures.py           random changes, and the server's own preparation
boxed_pictures.py     the same of pictures with boxes
classifiers.py        a step of a classifier, and its optimiser
detectors.py          a step of a detector, and how its boxes are judged
fitting.py            the epochs, by PyTorch Lightning; goes on after any end
keeping.py            checkpoints, whole at any moment
whole_files.py        the same of small files
progress.py           a line and a bar of each epoch
searching.py          several settings, tried by Optuna
curves.py             losses and figures, drawn
handing_over.py       weights, labels, pictures and the recipe
"""
