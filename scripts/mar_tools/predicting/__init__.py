"""Image files become answers, and answers become tables, CSV, JSON lines and COCO results.

predictors.py    asks a server, or an archive in this process, for the answer of each file
coco_results.py  makes a COCO results file of detections
formats.py       writes answers as they come: table, JSON lines, CSV, COCO
"""
