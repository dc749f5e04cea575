"""A page to try the served models in a browser: its files, and a small server of its own for this machine.

assets.py        knows the files of the page, its sample pictures, and what a browser may do with them
forwarding.py    passes what the page asks on to TorchServe, with its token
reports.py       makes the report of a served model, in a process of its own
page_server.py   serves the page and answers it on this machine alone
"""
