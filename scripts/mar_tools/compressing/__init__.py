"""A trained network to a faster one, with the proof of what that cost: each result is a recipe that builds.

running.py         from what a user asks to one result, or to a ladder of them
originals.py       the network to compress, how good it is, and the pictures to train with
steps.py           what may be done to it
pruning.py         channels taken out, by torch-pruning; batch norms estimated anew
distilling.py      a training whose target is also what a teacher answers
quantising.py      a training with the values of int8
compression.py     the steps of one result, from the original to its recipe
handing_over.py    its folder
rungs.py           what is tried next, by what was good enough
ladder.py          several results, each built, until a budget is used up
fronts.py          which of them are worth having, as a table
plots.py           the same as a picture
"""
