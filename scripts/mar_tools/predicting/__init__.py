"""Pictures become answers, and answers become tables, CSV, JSON lines, COCO results and Parquet.

arguments.py     what predict_images.py can be asked for
inputs.py        files, folders, lists, globs, Parquet, tar, object stores -> items
connecting.py    a server by its settings, or by an address and a key
predictors.py    asks a server, or an archive in this process, for the answer to each picture, as they come
formats.py       writes answers as they come: table, JSON lines, CSV, COCO
coco_results.py  makes a COCO results file of detections

Where the result must outlive its process, an engine turns chunks of items into shards of rows:

recording.py     the flow: list, predict what has no row yet, merge
rows.py          one picture -> one row; the columns of Parquet
chunks.py        neighbours among the items, and their answers by a loaded model
shards.py        the folder of results: written under other names, synced, renamed
local_engine.py  processes of this machine, replaced when they die; local_worker.py is one of them
trial.py         how many processes, and images a batch
http_engine.py   a server
probing.py       a gray picture, which tells before the work whether a model answers
merging.py       shards -> one file
finished.py      what such a file holds, of which nothing is left to do
progress.py      how far it is, and the time left
"""
