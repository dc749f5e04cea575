"""What must hold when requests are hostile and processes die, and the traffic that shows whether it does.

rows.py                the rows that run_chaos.py measures
episodes.py            one repetition of a row: figures, failures, problems
worker_faults.py       B1 to B5: workers killed, stopped, hung, out of memory
overload.py            B7 to B9: full queues, clients that leave, odd bodies
operations.py          B6, B10 to B12: models that come and go, a drain, a killed frontend
rolling_restarts.py    B13: two servers behind one front, restarted in turn
archive_rows.py        C1, C2: hostile and damaged archives
soak.py                D: hours of half load
soak_plots.py          its curves and plots
malformed.py           D-malformed: bytes that are hardly HTTP
attackers_requests.py  what the attackers of E1 to E5 send
client_attacks.py      E1 to E5: one client against another, through the front
machine_attacks.py     E6, E7: other users of the machine, and what it may lack
"""
