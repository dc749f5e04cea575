"""A recipe's model for a phone, a board or a browser: a folder with all that a program there needs.

export.py       the folder: artifact, JSON files, programs, golden picture, verification, README
documents.py    model.json, preprocessing.json, options.json, and which recipes cannot go into them
formats/        one file a format
running.py      the model of a folder, run by the format's own runtime
worker.py       that runtime's process
convert_to_litert.py a process in the environment of LiteRT
verifying.py    the folder's answers beside those of eager fp32
answered_boxes.py how far boxes move, whichever of two near ties NMS keeps
readme.py       README.md, of one screen
carried/        what is copied into folders
browser.py       that of a page, in Chromium
environments.py what a format needs and this environment cannot have
"""
