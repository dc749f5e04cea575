"""What a server shows to Prometheus: counts of its workers, what its management API says, and answers of its front.

worker_files.py   sums the files of all workers, those that have ended included
server_state.py   asks the management API for workers, queues and versions
model_facts.py    learns of each version in the background: what it is, and whether its golden prediction is right
readiness.py      says to probes whether the server should get requests, and whether it should be started again
score_shifts.py   compares sampled predictions with the verification, in the background
front_log.py      counts the answers that the front's log tells
deadlines.py      reads when tokens and certificates end, and how much disk is free
exporter.py       shows all of it at one address; a part that fails costs no other
"""
