"""Load tests of served models, and what the same model does without a server.

options.py          the options of a load test's command; no PyTorch
images.py           the pictures that are sent
targets.py          a served model, and images as its requests
answers.py          the expected answers, computed in process
served.py           the models of a running server, their requests and trials
http_client.py      one request, one record
closed_loop.py      so many connections, each with one request under way
open_loop.py        requests at random times, whether or not the server keeps up
in_process.py       P: the same work without a server
in_process_loop.py  one process of it
processes.py        CPU time and memory of a server's processes
measurement.py      records -> rates, latencies, stages
trials.py           one target under one load; several take turns
comparison.py       ratios of two targets, with their spread
reporting.py        progress, tables, the JSON document
plots.py            throughput against latency, servers, stages
"""
