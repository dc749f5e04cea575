"""Load tests of served models, and what the same model does without a server.

targets.py       what is asked: a served model, and images as its requests
images.py        the pictures that are sent
answers.py       the expected answers, computed in process
http_client.py   the bundled client: one request, one record
wrk.py           the same records from wrk
closed_loop.py   so many connections, each with one request under way
open_loop.py     requests that arrive at random times, whether or not the server keeps up
processes.py     CPU time and memory of a server's processes
measurement.py   records -> rates, latencies, stages
in_process.py    the same work in a loop, without a server
load_tests.py    several targets under several loads, in turns
plots.py         throughput against latency, stages
"""
