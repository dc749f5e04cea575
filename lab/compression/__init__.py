"""What compressing gains and costs, measured on two tasks whose pictures are drawn here.

pictures.py      draws the pictures: digits written by hand, and letters of printers' fonts
remembering.py   commands as a user types them, whose answers a work folder keeps
"""
